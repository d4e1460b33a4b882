"""Makes Transformers' Auto classes and pipelines know KineTrack, without loading them before somebody does.

`AutoConfig.register` and its kin need the classes themselves, and those need PyTorch: seconds that `kinetrack --help`
should not cost. So the registration waits until Transformers' own modules are imported. They, KineTrack's own
modules and `modeling_utils` import each other in many orders, some of them circular; registering only while none of
them is half-way through its import makes every order work.

A hook on imports is unusual, but nothing simpler does all of it: registering at once makes `import kinetrack` load
PyTorch; registering when one of KineTrack's names is first used comes too late for somebody who imports KineTrack and
then asks only `AutoModel`; and the tables of names that Transformers loads lazily reach no module outside Transformers.
The hook removes itself once everything is registered.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_PACKAGE = __name__.partition(".")[0]


def _register_config(auto: ModuleType, ours: ModuleType) -> None:
    auto.AutoConfig.register("kinetrack", ours.KineTrackConfig, exist_ok=True)


def _register_models(auto: ModuleType, ours: ModuleType) -> None:
    # AutoModel gives the whole thing: both heads in one pass.
    auto.AutoModel.register(ours.KineTrackConfig, ours.KineTrackForVideoAnalysis, exist_ok=True)
    auto.AutoModelForVideoClassification.register(
        ours.KineTrackConfig, ours.KineTrackForVideoClassification, exist_ok=True
    )


def _register_video_processor(auto: ModuleType, ours: ModuleType) -> None:
    config = import_module(f"{_PACKAGE}.configuration.configuration_kinetrack").KineTrackConfig
    auto.AutoVideoProcessor.register(config, ours.KineTrackVideoProcessor, exist_ok=True)


def _register_pipelines(pipelines: ModuleType, ours: ModuleType) -> None:
    auto = import_module("transformers.models.auto.modeling_auto")
    pipelines.PIPELINE_REGISTRY.register_pipeline(
        "video-analysis", pipeline_class=ours.VideoAnalysisPipeline, pt_model=auto.AutoModel, type="video"
    )
    # A task has one class in the registry, whatever the model. All other models keep the one they had.
    task = pipelines.PIPELINE_REGISTRY.supported_tasks["video-classification"]
    task["impl"] = _by_model(ours.KineTrackVideoClassificationPipeline, _stock_class(task["impl"]))


def _stock_class(impl: type | str) -> type:
    """The class that a task names, which newer Transformers do by a dotted path."""
    if not isinstance(impl, str):
        return impl
    module, _, name = impl.rpartition(".")
    return getattr(import_module(module), name)


def _by_model(ours: type, stock: type) -> type:
    class VideoClassificationByModel(stock):
        """Makes KineTrack's pipeline for KineTrack's models and the one that was there before for all others."""

        def __new__(cls, model, *args, **kwargs):
            return (ours if model.config.model_type == "kinetrack" else stock)(model, *args, **kwargs)

    return VideoClassificationByModel


# Transformers' module -> KineTrack's module and what to do once both are there.
_REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": (
        f"{_PACKAGE}.configuration.configuration_kinetrack",
        _register_config,
    ),
    "transformers.models.auto.modeling_auto": (f"{_PACKAGE}.modeling.modeling_kinetrack", _register_models),
    "transformers.models.auto.video_processing_auto": (
        f"{_PACKAGE}.processing.video_processing_kinetrack",
        _register_video_processor,
    ),
    "transformers.pipelines": (f"{_PACKAGE}.processing.pipeline_kinetrack", _register_pipelines),
}


class _ImportWatcher(MetaPathFinder):
    """Finds nothing itself; notices when the modules of `_REGISTRATIONS` have been imported."""

    def __init__(self):
        self.pending = dict(_REGISTRATIONS)
        self.loading: set[str] = set()
        self.watched = {*_REGISTRATIONS, "transformers.modeling_layers", "transformers.modeling_utils"}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The ordinary spec of a watched module, whose loader reports here; None for all other modules."""
        ours = fullname.startswith(f"{_PACKAGE}.") and fullname.endswith("_kinetrack")
        if not ours and fullname not in self.watched:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self.loading.add(fullname)
            try:
                execute(module)
            finally:
                self.loading.discard(fullname)
            self.register_loaded()

        spec.loader.exec_module = exec_module
        return spec

    def register_loaded(self) -> None:
        """Registers everything whose Auto class is there, unless a watched module is half-way through its import."""
        for name in list(self.pending):
            if self.loading or name not in sys.modules or name not in self.pending:
                continue
            ours, register = self.pending.pop(name)
            register(sys.modules[name], import_module(ours))
        if not self.pending and self in sys.meta_path:
            sys.meta_path.remove(self)


def register_when_needed() -> None:
    """Registers KineTrack with the Auto classes that are imported already, and with the others when they are."""
    if _PACKAGE != "kinetrack":
        return  # pytest imports the repository's root once more, under its folder's name; those classes are not ours
    watcher = _ImportWatcher()
    sys.meta_path.insert(0, watcher)
    watcher.register_loaded()
