"""A model knows how large its training set was; a dataset's splits count what is left."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Until now splits were never lowered.
_AS_REGISTERED = """
UPDATE model SET training_size = coalesce((dataset.splits ->> 'train')::integer, 0)
FROM dataset WHERE dataset.id = model.dataset_id
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


def downgrade() -> None:
    op.execute(_AS_BEFORE)
    op.drop_column("model", "training_size")
