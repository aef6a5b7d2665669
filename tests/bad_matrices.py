"""Matrix files that must be refused, made by hand: (id, text, prefix of the first problem, words of its message).

The texts stand on ``GOOD`` with one line changed or added, so that each shows one fault.
"""

from __future__ import annotations

SOURCE = "benchmarks.yaml"
GOOD = """\
version: 1
models: [mlp, cnn]
devices: [cpu, cuda]
batch_sizes: [100, 1000]
variants: [eager, compile]
"""
CELL = "include: [{model: mlp, device: cpu, batch_size: 7, variant: eager, "
Case = tuple[str, str, str, str]


def changed(number: int, line: str) -> str:
    """``GOOD`` with another line in the place of its line ``number`` (from 1)."""
    lines = GOOD.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


def added(line: str) -> str:
    """``GOOD`` with more at its end, on line 6."""
    return GOOD + line + "\n"


def _prefixed(rows: list[tuple[str, str, str, str]]) -> list[Case]:
    return [(name, text, f"{SOURCE}:{position}: ", phrase) for name, text, position, phrase in rows]


SYNTAX = _prefixed(
    [
        ("empty", "", "1:1", "is empty"),
        ("only-a-comment", "# nothing\n", "1:1", "is empty"),
        ("only-a-document-start", "---\n", "1:1", "is empty"),
        ("only-blank-lines", "\n\n  \n", "1:1", "is empty"),
        ("null", "~\n", "1:1", "is empty"),
        ("empty-mapping", "{}\n", "1:1", "is empty"),
        ("a-list", "- mlp\n- cnn\n", "1:1", "expected a mapping of keys, got a list"),
        ("a-text", "mlp\n", "1:1", "expected a mapping of keys, got the text 'mlp'"),
        ("a-number", "\n3\n", "2:1", "expected a mapping of keys, got the number 3"),
        ("unclosed-list", changed(2, "models: [mlp, cnn"), "3:8", "not valid YAML: while parsing a flow sequence"),
        ("unclosed-quote", added('name: "x'), "7:1", "not valid YAML: while scanning a quoted scalar"),
        ("colon-in-value", added("name: a: b"), "6:8", "not valid YAML: mapping values are not allowed here"),
        ("tab-indent", added("timing:\n\tprecision: 0.1"), "7:1", "not valid YAML"),
        ("bad-indent", added("timing:\n    precision: 0.1\n  budget_seconds: 1"), "8:3", "not valid YAML"),
        ("stray-bracket", added("]"), "6:1", "not valid YAML"),
        ("at-sign", added("name: @x"), "6:7", "not valid YAML: while scanning for the next token"),
        ("backtick", added("name: `x`"), "6:7", "not valid YAML"),
        ("bad-escape", added('name: "\\q"'), "6:9", "not valid YAML: while scanning a double-quoted scalar"),
        ("escape-beyond-unicode", added('name: "\\UFFFFFFFF"'), "6:10", "not valid YAML"),
        ("half-a-surrogate", added('name: "\\ud800"'), "6:7", "surrogate"),
        ("control-character", added("name: a\x01b"), "6:8", "the character '\\x01' is not allowed"),
        ("nul", "version: 1\x00\n", "1:11", "is not allowed"),
        ("unknown-directive-version", "%YAML 3.0\n---\n" + GOOD, "1:1", "incompatible YAML document"),
        ("two-documents", GOOD + "---\n" + GOOD, "6:1", "a second document"),
        ("no-key", added("just text"), "7:1", "not valid YAML"),
        ("undefined-alias", added("name: *x"), "6:7", "the alias '*x' names no anchor"),
        ("recursive-alias", added("exclude: &x [*x]"), "6:14", "names no anchor that ends before it"),
        ("deep-lists", added("exclude: " + "[" * 25 + "]" * 25), "6:30", "nested deeper than 20"),
        ("deep-mappings", added("timing: " + "{a: " * 25 + "1" + "}" * 25), "6:86", "nested deeper than 20"),
        ("very-deep", "[" * 100_000, "1:22", "nested deeper than 20"),
        ("tag-python-object", added("name: !!python/object:os.system x"), "6:7", "tags are refused"),
        ("tag-python-name", added("name: !!python/name:os.system"), "6:7", "tags are refused"),
        ("tag-apply", added("name: !!python/object/apply:os.system [ls]"), "6:7", "remove '!!python/object/apply:os"),
        ("tag-own", added("name: !secret x"), "6:7", "remove '!secret'"),
        ("tag-str", added("name: !!str x"), "6:7", "remove '!!str'"),
        ("tag-int", changed(1, "version: !!int 1"), "1:10", "remove '!!int'"),
        ("tag-lonely", added("name: ! x"), "6:7", "tags are refused"),
        ("tag-on-list", changed(2, "models: !!set [mlp]"), "2:9", "tags are refused"),
        ("tag-on-mapping", added("timing: !!omap {precision: 0.1}"), "6:9", "tags are refused"),
        ("tag-on-key", added("!!str name: x"), "6:1", "tags are refused"),
        ("tag-binary", added("name: !!binary aGk="), "6:7", "tags are refused"),
    ]
)

# Each: a plain scalar that the two versions read differently, put where text, a number or a truth value may stand.
_WORDS = (
    "on On ON off Off OFF yes Yes YES no No NO y Y n N 1:30 12:30:45 1:30.5 +1:30 010 0777 -010 08 09 0_1 1_000 1_0.5 "
    "1e-3 1e3 1E5 1.5e3 2e+2 .5e1 0o17 0b101 0b1_0 -0x1F 0x_F 2026-11-23 2026-11-23T10:00:00Z << = +.5 "
    "0b1 -0b1 0o7 1E+5 190:20:30 1__0 +010 -1_0 0x1_F 1e0 -1e3 5:00 2001-12-14t21:59:43.10-05:00 0x_1 1_0."
)
AMBIGUOUS = _prefixed(
    [(f"ambiguous-{word}", added(f"name: {word}"), "6:7", f"{word!r} is ambiguous") for word in _WORDS.split()]
    + [
        ("ambiguous-key-on", added("on: 1"), "6:1", "'on' is ambiguous"),
        ("ambiguous-key-no", added("timing: {no: 1}"), "6:10", "'no' is ambiguous"),
        ("ambiguous-key-number", added("010: 1"), "6:1", "'010' is ambiguous"),
        ("merge-key", added("limits: &l {memory_gib: 4}\ntiming: {<<: *l}"), "7:10", "a merge key"),
        ("ambiguous-model", changed(2, "models: [mlp, off]"), "2:15", "'off' is ambiguous"),
        ("ambiguous-batch-size", changed(4, "batch_sizes: [0100]"), "4:15", "reads the number 64"),
        ("ambiguous-underscore", changed(4, "batch_sizes: [1_000]"), "4:15", "YAML 1.2 the text '1_000'"),
        ("ambiguous-lr", changed(2, "models: [{model: mlp, lr: 1e-3}]"), "2:27", "write the number plainly"),
        ("ambiguous-bool", changed(5, "variants: [{name: a, channels_last: yes}]"), "5:37", "write true or false"),
        ("ambiguous-seed", added("seeds: [1:30]"), "6:9", "reads the number 90"),
        ("no-number-0b_", added("name: 0b_"), "6:7", "no number"),
        ("endless-number", added("epochs: " + "9" * 5000), "6:9", "no number"),
        ("endless-base-60", added("name: " + "1:" * 200 + "1.0"), "6:7", "no number"),
        ("infinity", added("timing: {budget_seconds: .inf}"), "6:26", "not a finite number"),
        ("minus-infinity", added("timing: {budget_seconds: -.Inf}"), "6:26", "not a finite number"),
        ("nan", added("timing: {precision: .nan}"), "6:21", "not a finite number"),
        ("overflow", added("limits: {memory_gib: 1.0e+999}"), "6:22", "not a finite number"),
    ]
)

KEYS = _prefixed(
    [
        ("unknown-key", added("foo: 1"), "6:1", "unknown key 'foo' (known: version, name"),
        ("misspelt-key", added("epoch: 1"), "6:1", "did you mean 'epochs'?"),
        ("key-in-capitals", added("Epochs: 1"), "6:1", "unknown key 'Epochs'"),
        ("unknown-key-with-newline", added('"a\\nb": 1'), "6:1", "unknown key 'a\\nb'"),
        (
            "unknown-model-key",
            changed(2, "models: [{model: mlp, rate: 1}]"),
            "2:23",
            "known: model, name, optimizer, lr",
        ),
        ("unknown-variant-key", changed(5, "variants: [{name: a, thread: 1}]"), "5:22", "did you mean 'threads'?"),
        ("unknown-timing-key", added("timing: {budget: 1}"), "6:10", "did you mean 'budget_seconds'?"),
        ("unknown-limits-key", added("limits: {timeout: 1}"), "6:10", "known: timeout_seconds, memory_gib"),
        ("unknown-exclude-key", added("exclude: [{models: mlp}]"), "6:12", "did you mean 'model'?"),
        ("unknown-include-key", added(CELL + "seed: 0}]"), "6:68", "unknown key 'seed'"),
        ("unknown-expect-key", added("expect: [{max_accuracy: 1}]"), "6:11", "did you mean 'min_accuracy'?"),
        ("number-as-key", added("3: x"), "6:1", "a key must be text, not the number 3"),
        ("null-as-key", added("~: x"), "6:1", "a key must be text, not nothing"),
        ("true-as-key", added("true: x"), "6:1", "a key must be text, not the truth value true"),
        ("list-as-key", added("? [a]\n: x"), "6:3", "a key must be text, not a list"),
        ("mapping-as-key", added("? {a: b}\n: x"), "6:3", "a key must be text, not a mapping"),
        ("duplicate-key", added("version: 1"), "6:1", "duplicate key 'version' (first on line 1)"),
        ("duplicate-axis", added("models: [lenet5]"), "6:1", "duplicate key 'models' (first on line 2)"),
        ("duplicate-inner", added("timing: {precision: 0.1, precision: 0.2}"), "6:26", "duplicate key 'precision'"),
        ("duplicate-quoted", added('"version": 1'), "6:1", "duplicate key 'version'"),
        ("duplicate-in-item", changed(2, "models: [{model: mlp, model: cnn}]"), "2:23", "duplicate key 'model'"),
        ("missing-version", changed(1, "name: x"), "1:1", "missing key 'version'"),
        ("missing-models", changed(2, "name: x"), "1:1", "missing key 'models'"),
        ("missing-devices", changed(3, "name: x"), "1:1", "missing key 'devices'"),
        ("missing-batch-sizes", changed(4, "name: x"), "1:1", "missing key 'batch_sizes'"),
        ("missing-variants", "# a comment\n" + changed(5, "name: x"), "2:1", "missing key 'variants'"),
        ("model-without-model", changed(2, "models: [mlp, {lr: 0.1}]"), "2:15", "models[1]: missing key 'model'"),
        ("variant-without-name", changed(5, "variants: [{threads: 1}]"), "5:12", "missing key 'name'"),
        ("include-without-device", added("include: [{model: mlp, batch_size: 1, variant: eager}]"), "6:11", "'device'"),
        ("include-without-model", added("include: [{device: cpu, batch_size: 1, variant: eager}]"), "6:11", "'model'"),
        ("include-without-size", added("include: [{model: mlp, device: cpu, variant: eager}]"), "6:11", "'batch_size'"),
        ("include-without-variant", added("include: [{model: mlp, device: cpu, batch_size: 1}]"), "6:11", "'variant'"),
    ]
)

TYPES = _prefixed(
    [
        ("version-2", changed(1, "version: 2"), "1:10", "this program reads version 1"),
        ("version-0", changed(1, "version: 0"), "1:10", "expected at least 1"),
        ("version-text", changed(1, 'version: "1"'), "1:10", "expected a whole number, got the text '1'"),
        ("version-float", changed(1, "version: 1.0"), "1:10", "expected a whole number, got the number 1.0"),
        ("version-true", changed(1, "version: true"), "1:10", "expected a whole number, got the truth value true"),
        ("name-number", added("name: 3"), "6:7", "expected text, got the number 3"),
        ("name-list", added("name: [a]"), "6:7", "expected text, got a list"),
        ("name-empty", added('name: ""'), "6:7", "'' is no name"),
        ("name-space", added("name: a b"), "6:7", "'a b' is no name"),
        ("name-slash", added("name: ../x"), "6:7", "'../x' is no name"),
        ("name-dot-first", added("name: .x"), "6:7", "'.x' is no name"),
        ("name-dash-first", added("name: -x"), "6:7", "'-x' is no name"),
        ("name-long", added("name: " + "a" * 65), "6:7", "up to 64"),
        ("name-not-ascii", added("name: é"), "6:7", "is no name"),
        ("name-newline", added('name: "a\\n"'), "6:7", "'a\\n' is no name"),
        ("name-escape", added('name: "\\e[31m"'), "6:7", "'\\x1b[31m' is no name"),
        ("dataset-unknown", added("dataset: fashion"), "6:10", "expected 'auto', 'mnist' or 'synthetic'"),
        ("dataset-list", added("dataset: [mnist]"), "6:10", "got a list"),
        ("recipe-unknown", added("recipe: keras"), "6:9", "expected 'standard' or 'tutorial', got the text 'keras'"),
        ("epochs-0", added("epochs: 0"), "6:9", "expected at least 1, got the number 0"),
        ("epochs-negative", added("epochs: -1"), "6:9", "expected at least 1"),
        ("epochs-51", added("epochs: 51"), "6:9", "one line of 4 KB"),
        ("epochs-float", added("epochs: 1.5"), "6:9", "expected a whole number, got the number 1.5"),
        ("epochs-text", added("epochs: two"), "6:9", "expected a whole number, got the text 'two'"),
        ("epochs-true", added("epochs: true"), "6:9", "expected a whole number"),
        ("epochs-huge", added("epochs: " + "9" * 400), "6:9", "expected at most 50, got a huge number"),
        ("seeds-0", added("seeds: 0"), "6:8", "seeds: expected at least 1"),
        ("seeds-1001", added("seeds: 1001"), "6:8", "expected at most 1000"),
        ("seeds-empty", added("seeds: []"), "6:8", "is empty"),
        ("seeds-negative", added("seeds: [0, -1]"), "6:12", "seeds[1]: expected at least 0"),
        ("seeds-too-large", added("seeds: [4294967296]"), "6:9", "expected less than 4294967296"),
        ("seeds-text", added("seeds: three"), "6:8", "expected a whole number, got the text 'three'"),
        ("seeds-true", added("seeds: true"), "6:8", "expected a count of seeds, or a list of seeds"),
        ("seeds-float", added("seeds: 2.0"), "6:8", "expected a count of seeds, or a list of seeds"),
        ("seeds-mapping", added("seeds: {count: 3}"), "6:8", "expected a list, got a mapping"),
        ("seeds-item-true", added("seeds: [true]"), "6:9", "expected a whole number"),
        ("seeds-item-list", added("seeds: [[1]]"), "6:9", "expected a whole number, got a list"),
        ("models-empty", changed(2, "models: []"), "2:9", "models: is empty: list at least one"),
        ("models-text", changed(2, "models: mlp"), "2:9", "expected a list, got the text 'mlp'"),
        ("models-mapping", changed(2, "models: {model: mlp}"), "2:9", "expected a list, got a mapping"),
        ("models-item-number", changed(2, "models: [mlp, 3]"), "2:15", "models[1]: expected text, got the number 3"),
        ("models-item-true", changed(2, "models: [true]"), "2:10", "expected a model's name, or a mapping"),
        ("models-item-list", changed(2, "models: [[mlp]]"), "2:10", "expected a mapping, got a list"),
        ("models-item-empty", changed(2, "models:\n  - mlp\n  -"), "4:4", "an empty item"),
        ("model-number", changed(2, "models: [{model: 3}]"), "2:18", "models[0].model: expected text"),
        ("model-lr-0", changed(2, "models: [{model: mlp, lr: 0}]"), "2:27", "expected more than 0, got the number 0"),
        ("model-lr-text", changed(2, "models: [{model: mlp, lr: fast}]"), "2:27", "expected a number, got the text"),
        ("model-lr-true", changed(2, "models: [{model: mlp, lr: true}]"), "2:27", "expected a number"),
        ("model-optimizer", changed(2, "models: [{model: mlp, optimizer: lion}]"), "2:34", "'sgd', 'adam' or 'adamw'"),
        ("model-bad-name", changed(2, "models: [{model: mlp, name: a/b}]"), "2:29", "'a/b' is no name"),
        ("devices-empty", changed(3, "devices: []"), "3:10", "devices: is empty"),
        ("devices-text", changed(3, "devices: cpu"), "3:10", "expected a list"),
        ("device-gpu", changed(3, "devices: [cpu, gpu]"), "3:16", "devices[1]: unknown device 'gpu' (known: cpu, cuda"),
        ("device-capitals", changed(3, "devices: [CPU]"), "3:11", "unknown device 'CPU'"),
        ("device-number", changed(3, "devices: [0]"), "3:11", "expected text, got the number 0"),
        ("device-cuda-text", changed(3, "devices: ['cuda:x']"), "3:11", "unknown device 'cuda:x'"),
        ("device-cuda-zeros", changed(3, "devices: ['cuda:00']"), "3:11", "unknown device 'cuda:00'"),
        ("device-cpu-number", changed(3, "devices: ['cpu:0']"), "3:11", "unknown device 'cpu:0'"),
        ("device-newline", changed(3, 'devices: ["cpu\\n"]'), "3:11", "unknown device 'cpu\\n'"),
        ("sizes-empty", changed(4, "batch_sizes: []"), "4:14", "batch_sizes: is empty"),
        ("sizes-number", changed(4, "batch_sizes: 100"), "4:14", "expected a list, got the number 100"),
        ("size-0", changed(4, "batch_sizes: [0]"), "4:15", "batch_sizes[0]: expected at least 1"),
        ("size-60001", changed(4, "batch_sizes: [60001]"), "4:15", "there are 60,000 training images"),
        ("size-text", changed(4, "batch_sizes: ['100']"), "4:15", "expected a whole number, got the text '100'"),
        ("size-float", changed(4, "batch_sizes: [1.5]"), "4:15", "expected a whole number"),
        ("size-true", changed(4, "batch_sizes: [true]"), "4:15", "expected a whole number"),
        ("variants-empty", changed(5, "variants: []"), "5:11", "variants: is empty"),
        ("variants-text", changed(5, "variants: eager"), "5:11", "expected a list"),
        ("variant-number", changed(5, "variants: [1]"), "5:12", "expected text, got the number 1"),
        ("variant-true", changed(5, "variants: [true]"), "5:12", "expected the name of a built-in variant"),
        ("variant-list", changed(5, "variants: [[eager]]"), "5:12", "expected a mapping, got a list"),
        ("exclude-mapping", added("exclude: {model: mlp}"), "6:10", "expected a list"),
        ("exclude-text", added("exclude: [mlp]"), "6:11", "exclude[0]: expected a mapping, got the text 'mlp'"),
        ("exclude-size-text", added("exclude: [{batch_size: '100'}]"), "6:24", "expected a whole number"),
        ("exclude-device", added("exclude: [{device: gpu}]"), "6:20", "unknown device 'gpu'"),
        ("include-text", added("include: [mlp/cpu/b100/eager]"), "6:11", "expected a mapping"),
        ("expect-number", added("expect: [{min_accuracy: high}]"), "6:25", "expected a number"),
        ("expect-above-1", added("expect: [{min_accuracy: 95}]"), "6:25", "expected at most 1, got the number 95"),
        ("expect-below-0", added("expect: [{min_accuracy: -0.1}]"), "6:25", "expected at least 0"),
        ("expect-speed", added("expect: [{min_train_samples_per_s: -1}]"), "6:36", "expected at least 0"),
        ("timing-list", added("timing: [0.02, 20]"), "6:9", "expected a mapping, got a list"),
        ("timing-precision-0", added("timing: {precision: 0}"), "6:21", "expected more than 0"),
        ("timing-precision-1", added("timing: {precision: 1}"), "6:21", "expected less than 1"),
        ("timing-budget", added("timing: {budget_seconds: -1}"), "6:26", "expected at least 0"),
        ("limits-number", added("limits: 16"), "6:9", "expected a mapping, got the number 16"),
        ("limits-timeout", added("limits: {timeout_seconds: 0}"), "6:27", "expected more than 0"),
        (
            "limits-timeout-text",
            added("limits: {timeout_seconds: 10m}"),
            "6:27",
            "expected a number, got the text '10m'",
        ),
        ("limits-memory", added("limits: {memory_gib: 0}"), "6:22", "expected more than 0"),
        ("no-value", added("epochs:"), "6:8", "epochs: has no value"),
        ("no-models", changed(2, "models:"), "2:8", "models: has no value"),
        ("null-exclude", added("exclude: null"), "6:10", "exclude: has no value"),
    ]
)


def _variant(settings: str, column: int, name: str, phrase: str) -> tuple[str, str, str, str]:
    """``column`` counts from the first character of the settings."""
    start = "variants: [{name: x, "
    return f"variant-{name}", changed(5, f"{start}{settings}}}]"), f"5:{len(start) + column}", phrase


RULES = _prefixed(
    [
        (
            "unknown-model",
            changed(2, "models: [mlp, lenet]"),
            "2:15",
            "unknown model 'lenet' (known: cnn, lenet5, mlp)",
        ),
        ("model-in-capitals", changed(2, "models: [MLP]"), "2:10", "unknown model 'MLP'"),
        (
            "unknown-model-in-entry",
            changed(2, "models: [{model: vgg}]"),
            "2:18",
            "models[0].model: unknown model 'vgg'",
        ),
        ("plug-in", changed(2, 'models: ["mine:build"]'), "2:10", "add --allow-plugins"),
        ("plug-in-entry", changed(2, 'models: [{model: "mine:build", lr: 0.1}]'), "2:18", "add --allow-plugins"),
        ("plug-in-form", changed(2, 'models: ["my-file:build"]'), "2:10", "write package.module:function"),
        ("plug-in-lambda", changed(2, 'models: ["os:system(1)"]'), "2:10", "unknown model"),
        ("duplicate-model", changed(2, "models: [mlp, cnn, mlp]"), "2:20", "duplicate model 'mlp' (first on line 2)"),
        ("two-models-of-one-name", changed(2, "models: [mlp, {model: mlp, lr: 0.1}]"), "2:15", "another name"),
        ("model-takes-name", changed(2, "models: [{model: mlp, name: lenet5}]"), "2:29", "name of a built-in model"),
        ("duplicate-device", changed(3, "devices: [cpu, cpu]"), "3:16", "duplicate device 'cpu'"),
        ("cuda-twice", changed(3, "devices: [cuda, 'cuda:0']"), "3:17", "'cuda' is 'cuda:0'"),
        ("duplicate-size", changed(4, "batch_sizes: [100, 100]"), "4:20", "duplicate batch size 100"),
        ("duplicate-size-hex", changed(4, "batch_sizes: [16, 0x10]"), "4:19", "duplicate batch size 16"),
        ("duplicate-seed", added("seeds: [1, 2, 1]"), "6:15", "duplicate seed 1"),
        ("unknown-variant", changed(5, "variants: [fast]"), "5:12", "unknown variant 'fast' (known: eager, compile"),
        ("duplicate-variant", changed(5, "variants: [eager, eager]"), "5:19", "duplicate variant 'eager'"),
        ("two-variants", changed(5, "variants: [{name: a}, {name: a, threads: 1}]"), "5:23", "another name"),
        (
            "variant-redefined",
            changed(5, "variants: [{name: eager, threads: 1}]"),
            "5:19",
            "name of a built-in variant",
        ),
        ("variant-bad-name", changed(5, "variants: [{name: a/b}]"), "5:19", "'a/b' is no name"),
        _variant("execution: graph", 12, "execution", "expected 'eager' or 'compile'"),
        _variant("execution: cuda_graph", 12, "cuda-graph", "this version cannot capture CUDA graphs"),
        _variant("precision: fp16", 12, "fp16", "this version cannot train in fp16"),
        _variant("precision: fp8", 12, "fp8", "expected 'fp32', 'tf32' or 'bf16'"),
        _variant("processes: 2", 12, "processes", "this version runs a trial in one process"),
        _variant("compile: {}", 1, "compile-eager", "add execution: compile"),
        _variant("execution: eager, compile: {mode: default}", 19, "compile-said-eager", "no effect"),
        _variant("execution: compile, compile: true", 30, "compile-true", "expected a mapping, got the truth value"),
        _variant("execution: compile, compile: {mode: max}", 37, "mode", "expected 'default', 'reduce-overhead'"),
        _variant("execution: compile, compile: {scope: all}", 38, "scope", "expected 'model' or 'step'"),
        _variant("execution: compile, compile: {backend: a b}", 40, "backend", "'a b' is no backend's name"),
        _variant("execution: compile, compile: {fullgraph: 1}", 42, "fullgraph", "expected true or false"),
        _variant("execution: compile, compile: {dynamic: auto}", 40, "dynamic", "expected true or false"),
        _variant("execution: compile, compile: {modes: x}", 31, "compile-key", "did you mean 'mode'?"),
        _variant("pipeline: dali", 11, "pipeline", "expected 'resident', 'tensors', 'torchvision' or 'tutorial'"),
        _variant("workers: 2", 10, "workers-resident", "the resident pipeline has no loader"),
        _variant("pipeline: tensors, workers: 65", 29, "workers-65", "expected at most 64"),
        _variant("pipeline: tensors, workers: -1", 29, "workers-negative", "expected at least 0"),
        _variant("threads: 0", 10, "threads-0", "expected at least 1"),
        _variant("threads: 1025", 10, "threads-1025", "expected at most 1024"),
        _variant("threads: null", 10, "threads-null", "has no value"),
        _variant("threads: all", 10, "threads-text", "expected a whole number"),
        _variant("fused_optimizer: 'true'", 18, "fused", "expected true or false, got the text 'true'"),
        _variant("channels_last: 1", 16, "channels-last", "expected true or false, got the number 1"),
        _variant("flush_denormal: 0", 17, "flush-denormal", "expected true or false"),
        _variant("deterministic: maybe", 16, "deterministic", "expected true or false"),
        ("exclude-everything", added("exclude: [{}]"), "6:11", "would exclude every cell"),
        ("exclude-all-models", added("exclude: [{model: mlp}, {model: cnn}]"), "6:1", "leaves no cell"),
        ("exclude-absent-model", added("exclude: [{model: lenet5}]"), "6:19", "excludes nothing"),
        ("exclude-unknown-variant", added("exclude: [{variant: fast}]"), "6:21", "known: eager, compile"),
        ("exclude-absent-size", added("exclude: [{batch_size: 10}]"), "6:24", "no cell has the batch_size 10"),
        ("exclude-absent-device", added("exclude: [{device: mps}]"), "6:20", "no cell has the device 'mps'"),
        (
            "include-existing",
            added("include: [{model: mlp, device: cpu, batch_size: 100, variant: eager}]"),
            "6:11",
            "duplicate cell mlp/cpu/b100/eager",
        ),
        (
            "include-existing-gpu",
            added("include: [{model: mlp, device: 'cuda:0', batch_size: 100, variant: eager}]"),
            "6:11",
            "duplicate cell mlp/cuda:0/b100/eager",
        ),
        (
            "include-twice",
            added("include:\n" + "  - {model: mlp, device: cpu, batch_size: 7, variant: eager}\n" * 2),
            "8:5",
            "duplicate cell mlp/cpu/b7/eager",
        ),
        (
            "include-unknown-model",
            added("include: [{model: vgg, device: cpu, batch_size: 1, variant: eager}]"),
            "6:19",
            "unknown model 'vgg' (known: mlp, cnn, lenet5)",
        ),
        (
            "include-unknown-variant",
            added("include: [{model: mlp, device: cpu, batch_size: 1, variant: fast}]"),
            "6:61",
            "unknown variant 'fast'",
        ),
        ("expect-nothing", added("expect: [{model: mlp}]"), "6:10", "expects nothing"),
        ("expect-absent", added("expect: [{model: lenet5, min_accuracy: 0.9}]"), "6:18", "never be checked"),
        (
            "expect-excluded",
            added("exclude: [{model: mlp, device: cpu}]\nexpect: [{model: mlp, device: cpu, min_accuracy: 0.9}]"),
            "7:10",
            "matches no cell",
        ),
        (
            "too-many-cells",
            changed(4, f"batch_sizes: [{', '.join(map(str, range(1, 2502)))}]"),
            "1:1",
            "20,008 cells",
        ),
        (
            "vast-axes",
            changed(4, f"batch_sizes: [{', '.join(map(str, range(1, 10_001)))}]"),
            "1:1",
            "80,000 cells",
        ),
        (
            "alias-bomb",
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            "6:8",
            "more than 100,000 values once aliases are expanded",
        ),
    ]
)

CASES: list[Case] = [*SYNTAX, *AMBIGUOUS, *KEYS, *TYPES, *RULES]
