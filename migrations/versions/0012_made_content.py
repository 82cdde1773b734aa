"""Content that the service makes is noted before its file is in the store."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_SO_FAR = """
INSERT INTO made_content (digest)
SELECT artifact_digest FROM job_step
UNION SELECT inputs ->> 'plan' FROM job WHERE inputs ->> 'plan' IS NOT NULL
UNION SELECT digest FROM judge
UNION SELECT artifact_digest FROM shadow_pair
"""


def upgrade() -> None:
    op.create_table(
        "made_content",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.clock_timestamp(),
        ),
    )
    op.execute(_SO_FAR)


def downgrade() -> None:
    op.drop_table("made_content")
