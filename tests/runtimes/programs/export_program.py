"""Export a small classifier: `python export_program.py FILE`; prints its answers to eight rows."""

import json
import sys

import torch

torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3), torch.nn.Softmax(dim=1))
rows = torch.arange(32, dtype=torch.float32).reshape(8, 4) / 32
batch = torch.export.Dim("batch", min=1, max=4096)
program = torch.export.export(model.eval(), (rows[:2],), dynamic_shapes={"input": {0: batch}})
torch.export.save(program, sys.argv[1])
print(json.dumps(model(rows).tolist()))
