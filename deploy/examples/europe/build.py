"""Write the Europe example's fleet files from the reference data, the same text every time.

    python deploy/examples/europe/build.py --data FOLDER [--out FOLDER]

FOLDER of the data defaults to HINTERLAND_DATA, the output to this file's own folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_models import models, services
from build_sites import links, sites
from build_traffic import classes, markets, plan_policy, policies, tenants
from tables import Tables
from yaml_text import documents

_NOTE = "Written by build.py; change that and run it again."


def files(tables: Tables) -> dict[str, str]:
    """File name -> text of every file of the example."""
    texts = {
        f"sites/{name}.yaml": documents(_NOTE, [(kind, name, spec)])
        for kind, name, spec in sites(tables)
    }
    texts["links.yaml"] = documents(f"Backbone between the campuses.\n{_NOTE}", links(tables))
    texts["markets.yaml"] = documents(f"Where traffic is born.\n{_NOTE}", markets(tables))
    texts["models.yaml"] = documents(f"Models, variants, serving points.\n{_NOTE}", models(tables))
    texts["services.yaml"] = documents(f"What clients ask for.\n{_NOTE}", services())
    texts["residency.yaml"] = documents(
        f"Residency law and contracts. Compiled for modelling, not legal advice.\n{_NOTE}",
        policies(tables),
    )
    texts["tenants.yaml"] = documents(f"Customers, all made up.\n{_NOTE}", tenants())
    texts["traffic.yaml"] = documents(f"Traffic classes.\n{_NOTE}", classes(tables))
    texts["plan.yaml"] = documents(f"Prices and limits of plans.\n{_NOTE}", plan_policy())
    return texts


def main() -> int:
    """Write the files; 64 without data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("HINTERLAND_DATA", ""))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args()
    if not given.data:
        sys.stderr.write("name the folder of the reference data: --data or HINTERLAND_DATA\n")
        return 64
    for name, text in files(Tables(Path(given.data))).items():
        target = given.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
