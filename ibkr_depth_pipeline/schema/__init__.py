"""What is stored in Redis: names, encoding, decoding. Pure, and shared by sink, reader, archive and views."""
