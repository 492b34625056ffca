"""The page docs/http.md against the tables of endpoints. That it is fresh is tested in test_generate.py."""

import pytest

from docs.generate.http import PARTS, http_page, parameters


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.daemon)
def test_every_parameter_is_documented(part):
    """Each parameter of a daemon's table is explained in its part of the page, and nothing else is."""
    named = {name for row in part.endpoints for name in parameters(row)}

    assert named == set(part.parameters)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.daemon)
def test_every_row_has_a_meaning(part):
    """Each endpoint has a line of its own in the page, which says what it is for."""
    assert [] == [row.path for row in part.endpoints if not row.meaning.endswith((".", ")", "*"))]
    assert [] == [row.path for row in part.endpoints if f"| `{row.path}` |" not in http_page()]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.daemon)
def test_remarks_belong_to_groups(part):
    """No remark is left of a group that is not there."""
    assert set(part.remarks) <= {row.group for row in part.endpoints}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.daemon)
def test_groups_stand_together(part):
    """The rows of a group follow each other, so that each heading comes once."""
    groups = [row.group for row in part.endpoints]

    assert list(dict.fromkeys(groups)) == [g for i, g in enumerate(groups) if i == 0 or groups[i - 1] != g]
