"""Read a store with pandas: what `read_a_store.ipynb` does, as a script.

hkdbench demo; python examples/read_a_store.py     or: HKDBENCH_STORE=results/scenes python examples/read_a_store.py
"""

# %% [markdown]
# # Reading results
# `open_store()` opens `$HKDBENCH_STORE`, else `./runs`; give it a folder, `s3://bucket/prefix` or a packed `*.tar.xz`
# to open another one. [docs/python_api.md](../docs/python_api.md) has all functions.

# %%
from harness import open_store

results = open_store()
runs = results.runs()
print(runs.groupby(["benchmark", "method", "student"])["seed"].nunique())

# %% [markdown]
# The ranking has the numbers of `hkdbench rank`: means over seeds, with 95 % intervals over seeds and images.

# %%
benchmark = runs["benchmark"].iloc[0]
ranking = results.ranking(benchmark)
print(ranking[["rank", "label", "student", "value", "low", "high"]].to_string(index=False))

# %% [markdown]
# Two rows compared, paired by seed and example: the best against the last that has a rank.

# %%
ranked = ranking[ranking["rank"].notna()]
best, last = (f"{row.label}@{row.student}" for row in ranked.iloc[[0, -1]].itertuples())
print(results.compare(best, last, benchmark=benchmark)[["part", "difference", "low", "high", "p"]].to_string())

# %% [markdown]
# Every answer is a row. Which examples does no run get right?

# %%
answers = results.predictions(benchmark=benchmark, split="test")
solved = answers.groupby("id")["correct"].mean()
print(f"{(solved == 0).sum()} of {len(solved)} examples are solved by no run")

# %% [markdown]
# The ranking as a picture, which a browser shows, too.

# %%
plot = results.plot(benchmark)
plot.save("ranking.html")
plot
