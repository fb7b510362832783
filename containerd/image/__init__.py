"""Images as documents: platforms, manifests, configs, media types of layers."""
