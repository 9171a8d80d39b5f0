"""Terms: further losses on the features that a method has computed."""
