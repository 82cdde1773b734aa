"""What waits on a line is found by an index: a claim looks there for more urgent work."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_job_line",
        "job",
        ["line", "queue", "due_at"],
        postgresql_where=sa.text("status = 'queued'"),
    )


def downgrade() -> None:
    op.drop_index("ix_job_line", table_name="job")
