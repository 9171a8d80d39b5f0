"""Refiners: what a method believes about its unlabelled images, and how that belief is improved."""
