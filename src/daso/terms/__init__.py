"""Terms: further losses on the features that a method has computed."""

from daso.terms.abc import ABC
from daso.terms.term import Outputs, Term

__all__ = ["ABC", "Outputs", "Term"]
