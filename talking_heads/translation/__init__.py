"""Translation from scratch: an encoder-decoder of Marian's shape on parallel text, with the arms of a comparison."""
