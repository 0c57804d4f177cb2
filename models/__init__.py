"""Networks of .cfg files: definition, modules, heads, loss, distillation, weights and costs."""
