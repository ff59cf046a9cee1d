"""Language models of Hugging Face's `transformers`, read into Helix checkpoints and written back."""

from helix_ssm.hf.exporter import Exported, export_hf
from helix_ssm.hf.importer import Imported, import_hf

__all__ = ["Exported", "Imported", "export_hf", "import_hf"]
