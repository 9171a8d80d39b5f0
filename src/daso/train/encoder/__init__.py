"""Which encoder is trained: from scratch, pretrained, or frozen with embeddings kept."""
