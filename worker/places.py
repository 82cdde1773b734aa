"""Which samples of a dataset are in which set of a plan."""

from salun_core import errors
from service import plans
from worker import samples


def of_plan(plan: plans.Plan, listed: samples.Listing) -> dict[str, list[int]]:
    """Positions in the listing by set, each in order of sample id.

    The sets are ``forget``, ``previous``, ``retain``, ``holdout`` and ``test``; what is withheld is
    in none.

    Raises:
        InvalidDataError: a sample to forget is not in the listing.
    """
    named = dict.fromkeys(plan.withheld_ids, "withheld")
    named |= dict.fromkeys(plan.previous_ids, "previous")
    named |= dict.fromkeys(plan.forget_ids, "forget")
    places: dict[str, list[int]] = {
        name: [] for name in ("forget", "previous", "withheld", "retain", "holdout", "test")
    }
    for row, one in enumerate(listed.samples):
        of_split = "retain" if one.split == "train" else one.split
        places[named.get(one.sample_id, of_split)].append(row)
    missing = len(plan.forget_ids) - len(places["forget"])
    if missing:
        detail = f"{missing} of {len(plan.forget_ids)} samples to forget are not in the stored data"
        raise errors.InvalidDataError(detail)
    del places["withheld"]
    for rows in places.values():
        rows.sort(key=lambda row: listed.samples[row].sample_id)
    return places
