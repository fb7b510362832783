"""containerd's side: typed client, images and the puller, snapshots, the OCI spec."""
