"""From the options of ``daso train`` to a training that is followed to its end."""
