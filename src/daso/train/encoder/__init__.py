"""The encoder of a training: from scratch, pretrained, or frozen with stored embeddings."""
