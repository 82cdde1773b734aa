"""Count the erasures of a model beside them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasure_count",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("erasures", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_erasure_count_model_id")),
        sa.PrimaryKeyConstraint("model_id", "shard", name=op.f("pk_erasure_count")),
    )
    op.execute(
        "INSERT INTO erasure_count (model_id, shard, erasures)"
        " SELECT model_id, 0, count(*) FROM erasure GROUP BY model_id"
    )


def downgrade() -> None:
    op.drop_table("erasure_count")
