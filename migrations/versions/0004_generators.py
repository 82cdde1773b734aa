"""Concepts that generators forget, and the nets that judge what they draw."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "concept_erasure",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("concept", sa.Text(), nullable=False),
        sa.Column("replacement", sa.Text(), nullable=False),
        sa.Column("prompts", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_concept_erasure_model_id")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch.id"], name=op.f("fk_concept_erasure_batch_id")
        ),
        sa.PrimaryKeyConstraint("model_id", "concept", name=op.f("pk_concept_erasure")),
    )
    op.create_index(
        op.f("ix_concept_erasure_batch_id"), "concept_erasure", ["batch_id"], unique=False
    )
    op.create_table(
        "request_concept",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("concept", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["forget_request.id"], name=op.f("fk_request_concept_request_id")
        ),
        sa.PrimaryKeyConstraint("request_id", "concept", name=op.f("pk_request_concept")),
    )
    op.create_table(
        "judge",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_judge_dataset_id")),
        sa.PrimaryKeyConstraint("dataset_id", "name", name=op.f("pk_judge")),
    )


def downgrade() -> None:
    op.drop_table("judge")
    op.drop_table("request_concept")
    op.drop_index(op.f("ix_concept_erasure_batch_id"), table_name="concept_erasure")
    op.drop_table("concept_erasure")
