"""Human-readable names of the UC Merced classes, by language.

They are not part of an artefact, whose class identifiers are stable and signed.
"""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_LANGUAGE = "en"
_NAMES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "agricultural": "farmland",
        "airplane": "airplane",
        "baseballdiamond": "baseball diamond",
        "beach": "beach",
        "buildings": "buildings",
        "chaparral": "chaparral",
        "denseresidential": "high-density residential",
        "forest": "forest",
        "freeway": "freeway",
        "golfcourse": "golf course",
        "harbor": "harbor",
        "intersection": "intersection",
        "mediumresidential": "medium-density residential",
        "mobilehomepark": "mobile home park",
        "overpass": "overpass",
        "parkinglot": "parking lot",
        "river": "river",
        "runway": "runway",
        "sparseresidential": "low-density residential",
        "storagetanks": "storage tanks",
        "tenniscourt": "tennis court",
    },
    "es": {
        "agricultural": "terreno agrícola",
        "airplane": "avión",
        "baseballdiamond": "campo de béisbol",
        "beach": "playa",
        "buildings": "edificios",
        "chaparral": "chaparral",
        "denseresidential": "residencial de densidad alta",
        "forest": "bosque",
        "freeway": "autopista",
        "golfcourse": "campo de golf",
        "harbor": "puerto",
        "intersection": "intersección",
        "mediumresidential": "residencial de densidad media",
        "mobilehomepark": "parque de casas móviles",
        "overpass": "paso elevado",
        "parkinglot": "estacionamiento",
        "river": "río",
        "runway": "pista de aterrizaje",
        "sparseresidential": "residencial de densidad baja",
        "storagetanks": "tanques de almacenamiento",
        "tenniscourt": "cancha de tenis",
    },
}
LANGUAGES = tuple(_NAMES)
"""Primary language subtags (RFC 5646) of the available names, the default one first."""


def find_display_name(label: str, language: str) -> str:
    """Return the name of a class in one of LANGUAGES, or the class itself if it is not a UC Merced class."""
    return _NAMES[language].get(label, label)
