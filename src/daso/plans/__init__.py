"""Plans: how a run is divided into trainings, one after the other."""
