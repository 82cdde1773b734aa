"""Every file of the store has a row, from before it is there."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_SO_FAR = """
INSERT INTO content (digest)
SELECT digest FROM blob
UNION SELECT artifact_digest FROM job_step
UNION SELECT inputs ->> 'plan' FROM job WHERE inputs ->> 'plan' IS NOT NULL
UNION SELECT digest FROM judge
UNION SELECT artifact_digest FROM shadow_pair
UNION SELECT digest FROM condemned WHERE digest NOT LIKE 'cache/%'
"""


def _created() -> sa.Column[object]:
    return sa.Column(
        "created_at",
        sa.DateTime(timezone=True),
        server_default=sa.text("clock_timestamp()"),
        nullable=False,
    )


def upgrade() -> None:
    op.execute("LOCK TABLE blob IN ACCESS EXCLUSIVE MODE")  # an upload waits, or is seen
    op.create_table(
        "content",
        sa.Column("digest", sa.Text(), nullable=False),
        _created(),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_content")),
    )
    op.execute(_SO_FAR)
    op.create_foreign_key(
        op.f("fk_blob_digest"), "blob", "content", ["digest"], ["digest"], ondelete="CASCADE"
    )
    op.drop_column("blob", "created_at")


def downgrade() -> None:
    op.add_column("blob", _created())
    op.drop_constraint(op.f("fk_blob_digest"), "blob", type_="foreignkey")
    op.drop_table("content")
