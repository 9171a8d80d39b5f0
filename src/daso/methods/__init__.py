"""Methods: how labels and beliefs about unlabelled images become losses."""
