"""Runs Django's own migrations on a live database, one at each line on stdin, and writes rows in between.

Use: django_migrations.py DATABASE
Says `applied NAME` after each, `done` at the end.
"""

import os
import sys
import types

import django
from django.conf import settings

# A deferred transaction that reads, then writes, fails at once where a node has written in between.
OPTIONS = {"timeout": 30}
if os.environ.get("DJANGO_IMMEDIATE"):
    OPTIONS["transaction_mode"] = "IMMEDIATE"

settings.configure(
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "OPTIONS": OPTIONS}
    },
    INSTALLED_APPS=["shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)

# An application in memory: Django wants modules, not files.
shop = types.ModuleType("shop")
shop.__path__ = []
shop.__file__ = __file__
migrations_package = types.ModuleType("shop.migrations")
migrations_package.__path__ = []
migrations_package.__file__ = __file__
sys.modules["shop"] = shop
sys.modules["shop.migrations"] = migrations_package

from django.apps import AppConfig  # noqa: E402


class ShopConfig(AppConfig):
    name = "shop"
    path = "/"


shop.ShopConfig = ShopConfig
settings.INSTALLED_APPS[0] = "shop.ShopConfig"
django.setup()

from django.db import connection, migrations, models  # noqa: E402
from django.db.migrations.executor import MigrationExecutor  # noqa: E402
from django.db.migrations.loader import MigrationLoader  # noqa: E402


def fill(apps, schema_editor):
    customer = apps.get_model("shop", "Customer")
    order = apps.get_model("shop", "Order")
    for number in range(200):
        one = customer.objects.create(name=f"customer {number}", email=f"{number}@example.org")
        order.objects.create(customer=one, total=number, note="n" * (number % 40))


def touch(apps, schema_editor):
    for order in apps.get_model("shop", "Order").objects.all()[:40]:
        order.total = order.total + 1
        order.save()


AUTO = ("id", models.BigAutoField(primary_key=True))
STEPS = [
    (
        "create",
        [
            migrations.CreateModel(
                "Customer",
                [AUTO, ("name", models.CharField(max_length=80)), ("email", models.EmailField(unique=True))],
            ),
            migrations.CreateModel(
                "Order",
                [
                    AUTO,
                    ("customer", models.ForeignKey("shop.Customer", on_delete=models.CASCADE)),
                    ("total", models.IntegerField(default=0)),
                    ("note", models.TextField(blank=True)),
                ],
            ),
            migrations.CreateModel("Tag", [AUTO, ("word", models.CharField(max_length=20))]),
        ],
    ),
    ("fill", [migrations.RunPython(fill)]),
    ("add_field", [migrations.AddField("Customer", "phone", models.CharField(max_length=20, null=True))]),
    ("add_field_default", [migrations.AddField("Order", "state", models.CharField(max_length=9, default="new"))]),
    ("alter_field", [migrations.AlterField("Order", "total", models.DecimalField(max_digits=12, decimal_places=2))]),
    ("alter_null", [migrations.AlterField("Customer", "phone", models.CharField(max_length=40, default=""))]),
    ("touch", [migrations.RunPython(touch)]),
    ("rename_field", [migrations.RenameField("Customer", "name", "full_name")]),
    ("add_index", [migrations.AddIndex("Order", models.Index(fields=["state", "-total"], name="order_state"))]),
    (
        "add_constraint",
        [
            migrations.AddConstraint(
                "Order", models.UniqueConstraint(fields=["customer", "state", "id"], name="one_state")
            )
        ],
    ),
    ("many_to_many", [migrations.AddField("Order", "tags", models.ManyToManyField("shop.Tag"))]),
    ("remove_field", [migrations.RemoveField("Order", "note")]),
    ("rename_model", [migrations.RenameModel("Customer", "Client")]),
    ("touch_again", [migrations.RunPython(touch)]),
    ("remove_constraint", [migrations.RemoveConstraint("Order", "one_state")]),
    ("remove_m2m", [migrations.RemoveField("Order", "tags")]),
    ("delete_model", [migrations.DeleteModel("Tag")]),
]

names = []
for number, (name, operations) in enumerate(STEPS):
    full = f"{number + 1:04}_{name}"
    attributes = {"operations": operations, "dependencies": [("shop", names[-1])] if names else []}
    module = types.ModuleType(f"shop.migrations.{full}")
    module.Migration = type("Migration", (migrations.Migration,), attributes)
    sys.modules[module.__name__] = module
    names.append(full)


def load_disk(self):
    self.disk_migrations = {
        ("shop", name): sys.modules[f"shop.migrations.{name}"].Migration(name, "shop") for name in names
    }
    self.unmigrated_apps, self.migrated_apps = set(), {"shop"}


MigrationLoader.load_disk = load_disk

for name in names:
    if not sys.stdin.readline():
        sys.exit("stdin ended")
    MigrationExecutor(connection).migrate([("shop", name)])
    print(f"applied {name}", flush=True)
print("done", flush=True)
