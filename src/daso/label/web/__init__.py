"""The page of ``daso label``: an application that answers one browser."""
