"""Train a network on handwritten digits: net.joblib, and held.csv with rows that it has not seen."""

import warnings

import joblib
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

images, digits = load_digits(return_X_y=True)
known, held, of_known, of_held = train_test_split(images / 16, digits, test_size=0.5, random_state=0, stratify=digits)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    net = MLPClassifier((600, 600), max_iter=10, random_state=0).fit(known, of_known)
joblib.dump(net, "net.joblib")
columns = [f"pixel_{number}" for number in range(held.shape[1])]
pd.DataFrame(held, columns=columns).assign(digit=of_held).to_csv("held.csv", index=False)
print(f"right on {net.score(held, of_held):.1%} of {len(held)} images")
