"""What model-index.yml says of the configs is so."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
METAFILES = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']


def test_every_config_is_listed_once():
    listed = [
        model['Config']
        for metafile in METAFILES
        for model in yaml.safe_load((ROOT / metafile).read_text())['Models']
    ]
    leaves = (p.relative_to(ROOT) for p in (ROOT / 'configs').rglob('*.py'))
    assert sorted(listed) == sorted(str(p) for p in leaves if '_base_' not in p.parts)


@pytest.mark.parametrize('metafile', METAFILES)
def test_entries_agree_with_their_configs(metafile):
    content = yaml.safe_load((ROOT / metafile).read_text())
    (collection,) = content['Collections']
    assert (ROOT / collection['README']).is_file()
    for model in content['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert model['In Collection'] == collection['Name']
        cfg, metadata = Config.fromfile(ROOT / model['Config']), model['Metadata']
        assert metadata['Epochs'] == cfg.train_cfg.max_epochs
        processes = int(model['Name'].split('_')[-2].partition('xb')[0])
        assert metadata['Batch Size'] == processes * cfg.train_dataloader.batch_size
