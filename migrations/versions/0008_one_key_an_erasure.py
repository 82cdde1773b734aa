"""An erasure's batch is of its model: one foreign key is enough."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("fk_erasure_model_id"), "erasure", type_="foreignkey")


def downgrade() -> None:
    op.create_foreign_key(op.f("fk_erasure_model_id"), "erasure", "model", ["model_id"], ["id"])
