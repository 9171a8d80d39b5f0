"""How good a model is, class by class: pure functions over logits and labels."""
