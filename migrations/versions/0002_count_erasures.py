"""Count the erasures of a model on its row."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the count and fill it."""
    op.add_column(
        "model", sa.Column("erasures", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.execute(
        "UPDATE model SET erasures = counted.n FROM"
        " (SELECT model_id, count(*) AS n FROM erasure GROUP BY model_id) counted"
        " WHERE counted.model_id = model.id"
    )


def downgrade() -> None:
    """Drop the count."""
    op.drop_column("model", "erasures")
