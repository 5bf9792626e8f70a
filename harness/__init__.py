"""hkdbench: distillation methods for small vision-language models, compared at equal budgets."""

__version__ = "0.2.0"
