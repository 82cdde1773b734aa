"""Count training samples and erasures by class."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "dataset",
        sa.Column(
            "class_sizes",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
    )
    op.execute(
        "UPDATE dataset d SET class_sizes = c.sizes FROM ("
        "SELECT dataset_id, jsonb_object_agg(label::text, size) AS sizes FROM ("
        "SELECT dataset_id, label, count(*) AS size FROM sample "
        "WHERE split = 'train' AND label IS NOT NULL GROUP BY dataset_id, label) s "
        "GROUP BY dataset_id) c WHERE c.dataset_id = d.id"
    )
    op.add_column(
        "erasure_count", sa.Column("label", sa.Integer(), server_default="-1", nullable=False)
    )
    op.alter_column("erasure_count", "label", server_default=None)
    op.drop_constraint(op.f("pk_erasure_count"), "erasure_count", type_="primary")
    op.create_primary_key(op.f("pk_erasure_count"), "erasure_count", ["model_id", "label", "shard"])
    op.execute(
        "INSERT INTO erasure_count (model_id, label, shard, erasures) "
        "SELECT e.model_id, s.label, 0, count(*) FROM erasure e "
        "JOIN model m ON m.id = e.model_id "
        "JOIN sample s ON s.dataset_id = m.dataset_id AND s.sample_id = e.sample_id "
        "WHERE s.label IS NOT NULL GROUP BY e.model_id, s.label"
    )


def downgrade() -> None:
    op.execute("DELETE FROM erasure_count WHERE label <> -1")
    op.drop_constraint(op.f("pk_erasure_count"), "erasure_count", type_="primary")
    op.drop_column("erasure_count", "label")
    op.create_primary_key(op.f("pk_erasure_count"), "erasure_count", ["model_id", "shard"])
    op.drop_column("dataset", "class_sizes")
