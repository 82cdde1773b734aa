"""A model knows how large its training set was; a dataset's splits count what is left.

Spans of time in a policy end at a century from now on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Until now splits were never lowered; only training samples are deleted.
_AS_REGISTERED = """
UPDATE model SET training_size = coalesce((dataset.splits ->> 'train')::integer, 0) - (
    SELECT count(*) FROM tombstone
    WHERE tombstone.dataset_id = dataset.id AND tombstone.created_at < model.created_at
)
FROM dataset WHERE dataset.id = model.dataset_id
"""
_SPANS = (
    "batch_window_seconds",
    "deadline_margin_seconds",
    "grace_seconds",
    "proof_window_seconds",
)
_SHORTER = """
UPDATE model SET policy = jsonb_set(policy, ARRAY[:span], '3155760000')
WHERE (policy ->> :span)::double precision > 3155760000
"""
_LEFT = """
UPDATE dataset SET splits = coalesce(
    (SELECT jsonb_object_agg(split, rows) FROM (
        SELECT split, count(*) AS rows FROM sample WHERE dataset_id = dataset.id GROUP BY split
    ) AS counted), '{}')
WHERE status = 'ready'
"""
_AS_BEFORE = """
UPDATE dataset SET splits = splits || jsonb_build_object('train', registered.size)
FROM (SELECT dataset_id, max(training_size) AS size FROM model GROUP BY dataset_id) AS registered
WHERE registered.dataset_id = dataset.id
"""


def upgrade() -> None:
    op.add_column("model", sa.Column("training_size", sa.Integer()))
    op.execute(_AS_REGISTERED)
    op.alter_column("model", "training_size", nullable=False)
    op.execute(_LEFT)
    for span in _SPANS:
        op.execute(sa.text(_SHORTER).bindparams(span=span))


def downgrade() -> None:
    op.execute(_AS_BEFORE)
    op.drop_column("model", "training_size")
