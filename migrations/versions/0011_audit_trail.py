"""Audit entries take a position and the digest of the one before."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_entry", sa.Column("position", sa.BigInteger))
    op.add_column("audit_entry", sa.Column("previous_digest", sa.Text))
    op.add_column("audit_entry", sa.Column("digest", sa.Text))
    chained = sa.text("position IS NOT NULL")
    op.create_index(
        "ix_audit_entry_chained",
        "audit_entry",
        ["position"],
        unique=True,
        postgresql_where=chained,
    )
    op.create_index(
        "ix_audit_entry_object",
        "audit_entry",
        ["object_id", "position"],
        postgresql_where=chained,
    )
    op.create_index(
        "ix_audit_entry_unchained",
        "audit_entry",
        ["id"],
        postgresql_where=sa.text("position IS NULL"),
    )


def downgrade() -> None:
    for index in ("unchained", "object", "chained"):
        op.drop_index(f"ix_audit_entry_{index}", table_name="audit_entry")
    for column in ("digest", "previous_digest", "position"):
        op.drop_column("audit_entry", column)
