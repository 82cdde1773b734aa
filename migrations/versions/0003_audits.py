"""Audits of versions, and the shadow nets that they share."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name=op.f("fk_audit_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_version_id"), "audit", ["version_id"], unique=False)
    op.create_table(
        "shadow_pair",
        sa.Column("base_version_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("artifact_digest", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["base_version_id"], ["version.id"], name=op.f("fk_shadow_pair_base_version_id")
        ),
        sa.PrimaryKeyConstraint("base_version_id", "name", name=op.f("pk_shadow_pair")),
    )


def downgrade() -> None:
    op.drop_table("shadow_pair")
    op.drop_index(op.f("ix_audit_version_id"), table_name="audit")
    op.drop_table("audit")
