"""Images as files, bytes and arrays: decode them, keep them encoded, cache them."""
