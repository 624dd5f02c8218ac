"""What model-index.yml lists is there; tests/test_configs.py checks what it says of each config."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
METAFILES = [
    yaml.safe_load((ROOT / path).read_text())
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
]


def test_every_config_is_listed_once():
    listed = sorted(model['Config'] for metafile in METAFILES for model in metafile['Models'])
    leaves = (p.relative_to(ROOT) for p in (ROOT / 'configs').rglob('*.py'))
    assert listed == sorted(str(p) for p in leaves if '_base_' not in p.parts)


def test_every_collection_has_a_card():
    for metafile in METAFILES:
        (collection,) = metafile['Collections']
        assert (ROOT / collection['README']).is_file()
        assert {model['In Collection'] for model in metafile['Models']} == {collection['Name']}
