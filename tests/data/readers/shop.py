"""A made-up shop: products with categories and descriptions, and customers with tastes, as files of every kind."""

import csv
import json

import numpy as np
import pyarrow as pa
from pyarrow import parquet

CATEGORIES = ("lamp", "chair", "kettle", "carpet", "shelf")
# Words that the built-in models know, so that they can tell one product from another.
COLLECTIONS = ("desert", "harbor", "castle", "jungle", "village", "city")
STYLES = ("grim", "playful", "tender", "eerie", "minimal")


def draw_shop(num_products=500, num_users=3000, ratings_per_user=20, seed=0):
    """Rows of products (sku, name, category, description, price) and of ratings (customer, sku, stars, day).

    A customer likes a collection and a style; stars are from 1 to 10.
    """
    rng = np.random.default_rng(seed)
    products, traits = [], []
    for number in range(num_products):
        category, collection, style = (
            names[int(rng.integers(len(names)))] for names in (CATEGORIES, COLLECTIONS, STYLES)
        )
        products.append(
            {
                "sku": 10**18 + number,
                "name": f"{style} {category} no. {number}",
                "category": category,
                "description": f'A {style} {category} of the {collection} collection.\nIt is called "{number}", '
                "and it is made by hand.",
                "price": round(float(rng.uniform(5, 200)), 2),
            }
        )
        traits.append((COLLECTIONS.index(collection), STYLES.index(style)))
    traits = np.array(traits)
    ratings = []
    for user in range(num_users):
        likes = rng.standard_normal(len(COLLECTIONS)), rng.standard_normal(len(STYLES))
        count = int(np.clip(rng.poisson(ratings_per_user), 5, num_products // 2))
        for item in rng.choice(num_products, count, replace=False):
            stars = 6 + 1.5 * likes[0][traits[item, 0]] + 1.5 * likes[1][traits[item, 1]] + rng.standard_normal()
            rating = {"customer": f"c{user}", "sku": products[item]["sku"], "stars": int(np.clip(round(stars), 1, 10))}
            ratings.append(rating | {"day": f"2026-{1 + len(ratings) % 12:02}-11"})
    return products, ratings


def write_rows(path, rows):
    """The rows as .csv, .tsv, .jsonl or .parquet."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


def files_of_shop(products_file, ratings_file, **changes):
    """The settings of the source `files`."""
    return {
        "items": str(products_file),
        "item_id": "sku",
        "title": "name",
        "text": "{description} Kind: {category}. Price: {price}.",
        "ratings": str(ratings_file),
        "user": "customer",
        "item": "sku",
        "feedback": "explicit",
        "rating": "stars",
        "scale": "1 to 10",
        "timestamp": "day",
    } | changes
