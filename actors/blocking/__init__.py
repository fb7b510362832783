"""Operations that may block without end, kept off the event loop."""
