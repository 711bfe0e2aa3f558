# ruff: noqa
"""What is renamed where: old names to the field's terms."""

EVERYWHERE = {
    # training
    "Play": "TrainingState",
    "Seat": "PlayerStep",
    "seat": "player_step",
    "seats": "player_steps",
    "take_turn": "step",
    "TurnRecord": "StepResult",
    "Average": "EMA",
    "averaged_networks": "ema_networks",
    "Suspicion": "CollapseDetector",
    "suspicion": "collapse_detector",
    "Recorder": "MetricRecorder",
    "generation": "rollback_count",
    "_settle_norms": "_update_running_stats",
    "take_noted": "take_batch_stats",
    "unnoted": "without_batch_stats",
    "begin_turn": "iterate",
    "begin_from": "load_weights_from",
    "newest_whole": "newest_complete",
    # noise
    "Draw": "KeyedNoise",
    # telemetry
    "Accounts": "TimeAccounting",
    "accounts": "time_accounting",
    "spending": "measure",
    "spent_on": "timed_as",
    "lined": "as_metrics",
    "Stopwatch": "Timer",
    "stopwatch": "timer",
    "laps": "steps",
    "Shown": "PushedState",
    "Past": "RunHistory",
    "past": "history",
    "hear": "handle",
    "Profile": "RoundProfiler",
    "profile_of": "round_profiler",
    "round_over": "end_round",
    # worker
    "LeftError": "DrainedError",
    "next_change": "next_schedule_step",
    "config_now": "current_config",
    # Ray
    "MeetingConfig": "RendezvousConfig",
    "_Meeting": "_Rendezvous",
    "MEET_SECONDS": "RENDEZVOUS_SECONDS",
    "Head": "HeadWatch",
    "Scores": "EvaluationTasks",
    "Elastic": "ElasticPolicy",
    "Fixed": "FixedPolicy",
    "Failures": "FailurePolicy",
    "_Leaving": "_DrainPolicy",
    "cpus_of": "worker_cpus",
    # tuning
    "order_of": "exploit_command",
    "spread_of": "score_spread",
    # config
    "Table": "Registry",
    "misfits_of_search": "search_conflicts",
    "misfits_of_schedule": "schedule_conflicts",
    "contradictions": "conflicts",
    "_contradictions_beside": "_conflicts_beside",
    "_misfits": "_run_conflicts",
    "_misfits_of_data": "_data_conflicts",
    "_misfits_of_model": "_model_conflicts",
    "_misfits_of_scores": "_score_conflicts",
    "_misfits_of_loss": "_loss_conflicts",
    "_misfits_of_candidates": "_candidate_conflicts",
    "_misfits_of_intervals": "_interval_conflicts",
    "_misfits_of_method": "_method_conflicts",
    "_misfits_of_mutation": "_mutation_conflicts",
    # evaluation
    "Wishes": "ScoreRequest",
    "Observation": "FeatureStatistics",
    "observe_fakes": "extract_generated",
    "observe_reals": "extract_real",
    "_observe_reals": "_real_statistics",
    "Statistics": "FeatureMoments",
    "Evaluation": "Evaluator",
    "PointEvaluation": "PointEvaluator",
    "Generated": "GeneratedImages",
    "Reals": "RealImages",
    "Forgiving": "CorruptSamplePolicy",
    # run folder
    "time_of": "time_breakdown",
    "time_of_trials": "trials_time_breakdown",
    "read_run": "read_status",
    "Holder": "LeaseHolder",
    "paragraph": "describe_run",
    # cli
    "Display": "ProgressDisplay",
    # benchmarks
    "Textbook": "TutorialStep",
    "textbook": "tutorial_step",
}

STATE = "ganrun/benchmarks/*.py ganrun/training/*.py ganrun/worker/*.py cluster/smoke.py tests/*"
EVENTS = (
    "ganrun/worker/channel.py ganrun/ray_backend/launch.py ganrun/ray_backend/evaluation_tasks.py ganrun/cli/progress.py "
    "ganrun/telemetry/search_state.py ganrun/telemetry/state.py ganrun/train.py ganrun/tune.py ganrun/tuning/reporting.py "
    "ganrun/tuning/scheduler.py ganrun/tuning/trainable.py ganrun/tuning/tuner.py ganrun/benchmarks/step.py "
    "ganrun/benchmarks/telemetry.py ganrun/benchmarks/unit_costs.py tests/ranks.py tests/ray_backend/test_evaluation_tasks.py "
    "tests/tuning/test_tuner.py tests/worker/test_rollback.py tests/worker/test_worker.py tests/telemetry/test_push.py "
    "tests/test_golden_keys.py"
)
CHANNEL = (
    "ganrun/worker/worker.py ganrun/worker/host.py ganrun/worker/channel.py ganrun/ray_backend/launch.py "
    "ganrun/benchmarks/step.py tests/ray_backend/test_evaluation_tasks.py tests/worker/test_exploit.py "
    "tests/worker/test_rollback.py tests/worker/test_worker.py tests/holding.py tests/test_golden_keys.py"
)
COMMANDS = (
    "ganrun/ray_backend/launch.py ganrun/ray_backend/policies.py ganrun/tuning/scheduler.py ganrun/tuning/trainable.py "
    "ganrun/tuning/tuner.py ganrun/worker/channel.py ganrun/worker/host.py ganrun/worker/worker.py tests/ranks.py "
    "tests/tuning/test_tuner.py tests/worker/test_exploit.py tests/worker/test_rollback.py "
    "tests/ray_backend/test_policies.py tests/ray_backend/test_evaluation_tasks.py tests/holding.py"
)
LINES_FOR_PEOPLE = (
    "ganrun/cli/progress.py ganrun/train.py ganrun/tune.py ganrun/tuning/scheduler.py ganrun/telemetry/search_state.py "
    "ganrun/telemetry/push.py ganrun/benchmarks/telemetry.py tests/tuning/test_tuner.py tests/telemetry/*.py "
    "tests/worker/test_exploit.py"
)

RULES = [
    ("*", EVERYWHERE),
    (STATE, {"play": "state"}),
    ("cluster/smoke.py", {"!state": "weights"}),
    ("ganrun/games/penalties.py", {"!noise": "delta"}),
    ("ganrun/preparation/write_index.py", {"!counts": "facts"}),
    ("tests/games/test_gan.py", {"!noise": "drawn"}),
    ("ganrun/training/checkpoint.py", {"!state": "record"}),
    ("ganrun/benchmarks/telemetry.py", {"state": "run_state"}),
    (
        "ganrun/training/*.py ganrun/benchmarks/*.py tests/training/*.py tests/games/*.py tests/test_bench.py",
        {"average": "ema", "averages": "ema"},
    ),
    ("*", {"purpose": "name"}),
    (
        "ganrun/games/*.py ganrun/training/*.py ganrun/worker/*.py ganrun/evaluation/generated_images.py "
        "ganrun/inference/sampling.py ganrun/benchmarks/telemetry.py tests/games/*.py tests/training/*.py "
        "tests/models/test_spectral_norm.py tests/test_rng.py",
        {"!draw": "noise", "draws": "noises"},
    ),
    (
        "ganrun/training/state.py ganrun/benchmarks/ablation.py tests/*/*.py tests/test_bench.py",
        {"_draws": "_noises", "_place": "_to_device", "_place_field": "_field_to_device"},
    ),
    ("ganrun/rng.py ganrun/data/stream.py", {"_place": "_to_device"}),
    ("tests/games/test_augment.py", {"!noise": "added"}),
    ("ganrun/telemetry/spans.py ganrun/training/*.py", {"mark": "span"}),
    (
        "ganrun/run_folder/report.py ganrun/telemetry/sidecar/health.py tests/run_folder/*.py",
        {"span": "format_duration"},
    ),
    (
        "ganrun/models/normalization.py ganrun/training/state.py tests/models/*.py",
        {".settle": "update_running_stats", "settle": "update_running_stats"},
    ),
    (
        "ganrun/models/extractors.py ganrun/evaluation/*.py tests/models/*.py tests/evaluation/*.py",
        {"look": "extract", "Looks": "Extract"},
    ),
    ("ganrun/training/loop.py ganrun/telemetry/collapse.py tests/telemetry/test_collapse.py", {"look": "update"}),
    (
        "ganrun/preparation/*.py",
        {
            "look": "read_shape",
            "tally": "counts",
            "Tally": "SampleCounts",
            "spread": "parallel_map",
            "Made": "PackedShard",
            "look_around": "find_earlier",
        },
    ),
    ("tests/preparation/*.py", {"spread": "parallel_map", "look_around": "find_earlier"}),
    ("ganrun/training/*.py ganrun/worker/*.py tests/training/*.py", {"signs": "symptoms", "_signs": "_symptoms"}),
    ("ganrun/telemetry/collapse.py tests/telemetry/test_collapse.py", {"sign": "symptom"}),
    (EVENTS, {"message": "event", "messages": "events", "_messages": "_events", "Message": "Event"}),
    (CHANNEL, {"line": "channel", "Line": "Channel"}),
    ("ganrun/worker/*.py", {"Line": "Channel"}),
    (
        COMMANDS,
        {
            "order": "command",
            "orders": "commands",
            "_orders": "_commands",
            "_ordered": "_exploit_command",
            "ordered": "exploiting",
        },
    ),
    ("ganrun/tuning/trainable.py", {"Order": "ExploitCommand", "begin": "write_trial_config", "train": "train_trial"}),
    (
        "ganrun/tuning/scheduler.py",
        {
            "begin": "write_trial_config",
            "Queue": "TrialQueue",
            "End": "SearchEnd",
            "Watch": "SearchObserver",
            "_order": "_send_exploit",
            "_heed": "_act_on",
            "tell": "send",
            "_note": "_append",
        },
    ),
    (
        "ganrun/tuning/tuner.py",
        {"End": "SearchEnd", "Queue": "TrialQueue", "Watch": "SearchObserver", "tell": "send", ".train": "train_trial"},
    ),
    ("tests/tuning/*.py", {"End": "SearchEnd", "Queue": "TrialQueue"}),
    (
        "ganrun/worker/channel.py ganrun/worker/host.py ganrun/worker/worker.py ganrun/ray_backend/launch.py tests/ranks.py tests/ray_backend/test_evaluation_tasks.py",
        {"say": "send"},
    ),
    ("ganrun/worker/async_writers.py tests/worker/test_async_writers.py tests/ranks.py", {"due": "pending"}),
    ("ganrun/worker/async_writers.py tests/worker/test_async_writers.py", {"say": "emit_event", "due": "pending"}),
    (
        "ganrun/worker/*.py tests/worker/*.py tests/faults/*.py tests/ranks.py",
        {"Lines": "LineWriter", "Checkpoints": "CheckpointWriter", "Due": "PendingCheckpoint"},
    ),
    (
        "ganrun/worker/host.py",
        {
            ".event": "log_event",
            "event": "log_event",
            "tell": "emit_event",
            "checkpoints": "checkpoint_writer",
            "lines": "line_writer",
            "_leave": "_drain",
            "leave": "end_attempt",
            "leaving": "draining",
            "_obey": "_execute_commands",
            "_agreed": "_agreed_exploit",
            "_turn": "_next_schedule_step",
            "_tally": "_rank_stats",
            "_tell_score": "_record_score",
            "_profile": "_profiler",
        },
    ),
    (
        "ganrun/worker/worker.py",
        {
            ".event": "log_event",
            ".tell": "emit_event",
            ".leave": "end_attempt",
            "_part": "_exit_drained",
            "_tell": "_report_start",
            "_tell_of_start": "_report_first_start",
            "_Telling": "_ChannelHandler",
            "telling": "handler",
            "_warnings_told": "_warnings_to_channel",
            "begin": "begin_attempt",
            "work": "run_worker",
            "_Place": "_Setup",
            "_place": "_set_up",
            "place": "setup",
        },
    ),
    (
        "ganrun/ray_backend/*.py ganrun/worker/*.py tests/ranks.py tests/worker/*.py tests/ray_backend/*.py tests/benchmarks/*.py ganrun/benchmarks/step.py",
        {"work": "run_worker", "Start": "AttemptStart"},
    ),
    ("ganrun/worker/resume.py", {"begin": "begin_attempt"}),
    ("tests/run_folder/making.py", {"work": "run_worker", "say": "send"}),
    ("tests/test_golden_keys.py", {"work": "run_worker"}),
    ("tests/ray_backend/test_evaluation_tasks.py", {"play": "train_with"}),
    (
        "ganrun/run_folder/totals.py ganrun/train.py ganrun/tune.py tests/run_folder/test_totals.py",
        {"past": "read_history"},
    ),
    ("tests/run_folder/test_status.py", {"size": "format_bytes"}),
    (
        "ganrun/telemetry/state.py",
        {
            f"_hear_{kind}": f"_handle_{kind}"
            for kind in "started restart rollback exploit images tick score picture checkpoint checkpoint_failed "
            "finished stopped note".split()
        },
    ),
    ("ganrun/worker/profile_rounds.py", {"tell": "emit_event"}),
    (
        "ganrun/worker/host.py ganrun/worker/worker.py ganrun/worker/resume.py ganrun/worker/transitions.py ganrun/ray_backend/*.py tests/worker/*.py",
        {"change": "transition", "Change": "Transition", "Leave": "Drain", "Turn": "ScheduleStep"},
    ),
    ("ganrun/worker/*.py tests/worker/*.py", {"Tally": "RankStats"}),
    ("ganrun/data/stream.py tests/data/*.py", {"Turn": "SlotBatches"}),
    ("ganrun/ray_backend/launch.py", {"tell": "send"}),
    (
        "ganrun/ray_backend/policies.py tests/ray_backend/*.py",
        {"Group": "CleanWorkerGroup", "room": "count_room", "cause": "restart_cause"},
    ),
    (
        "ganrun/ray_backend/cluster.py ganrun/ray_backend/launch.py ganrun/tuning/tuner.py tests/ray_backend/*.py",
        {"connected": "ray_cluster"},
    ),
    ("ganrun/ray_backend/rendezvous.py", {"_leave": "_destroy_group", "settings": "ray_train_environment"}),
    (
        "ganrun/ray_backend/launch.py",
        {"settings": "ray_train_environment", "_beside": "_on_this_node", "_given_up": "_ray_gave_up"},
    ),
    ("ganrun/tuning/records.py", {"mend": "terminate_last_line", "add_lines": "append_lines"}),
    ("ganrun/tune.py", {".mend": "terminate_last_line", "words": "summary"}),
    ("ganrun/tuning/*.py tests/tuning/*.py", {"add_lines": "append_lines", "mend": "terminate_last_line"}),
    ("ganrun/tuning/reporting.py ganrun/tuning/scheduler.py tests/tuning/*.py", {"Reporting": "TrialReporter"}),
    ("ganrun/tuning/summary.py ganrun/tune.py tests/tuning/*.py", {"line_of": "describe_line"}),
    (LINES_FOR_PEOPLE, {"say": "write_line"}),
    (
        "ganrun/evaluation/*.py ganrun/worker/*.py ganrun/inference/*.py tests/telemetry/test_page.py tests/evaluation/*.py ganrun/benchmarks/telemetry.py",
        {"evaluation": "evaluator"},
    ),
    (
        "ganrun/inference/scoring.py ganrun/evaluate.py ganrun/ray_backend/evaluation_tasks.py tests/*/*.py",
        {"wishes": "request"},
    ),
    ("ganrun/*.py tests/*", {"door": "entry_point", "doors": "entry_points"}),
    (
        "ganrun/runs.py",
        {
            "words": "report",
            "removal": "cleanup",
            ".figure": "format_score",
            ".size": "format_bytes",
            ".measure": "score_name",
            ".span": "format_duration",
        },
    ),
    (
        "ganrun/run_folder/report.py",
        {"figure": "format_score", "size": "format_bytes", "measure": "score_name", "shares": "format_shares"},
    ),
    ("ganrun/run_folder/time_breakdown.py ganrun/tune.py tests/run_folder/*.py", {"shares": "format_shares"}),
    ("ganrun/cli/progress.py ganrun/train.py", {"figure": "format_score"}),
    (
        "ganrun/run_folder/status.py ganrun/run_folder/report.py ganrun/runs.py tests/run_folder/*.py",
        {"Run": "RunStatus", "Saved": "SavedCheckpoint", "Attempts": "AttemptCounts"},
    ),
    ("ganrun/run_folder/status.py ganrun/run_folder/report.py tests/run_folder/*.py", {"Score": "ScorePoint"}),
    ("tests/run_folder/*.py", {"removal": "cleanup"}),
    ("tests/*", {"meeting": "rendezvous"}),
    (
        "ganrun/training/checkpoint.py ganrun/worker/*.py ganrun/benchmarks/*.py tests/benchmarks/*.py tests/worker/*.py tests/training/test_checkpoint.py",
        {"Progress": "RunProgress"},
    ),
]

STRINGS = [
    ("tests/telemetry/test_collapse.py", {"sign": "symptom"}),
    ("ganrun/telemetry/state.py", {"_hear_": "_handle_"}),
    ("ganrun/benchmarks/round_phases.py", {"_place": "_to_device"}),
    ("ganrun/ray_backend/launch.py", {"order": "command"}),
    ("tests/security/test_hostile_files.py", {"door": "entry_point"}),
    ("tests/test_rng.py", {"generation": "rollback_count"}),
    ("ganrun/benchmarks/round_phases.py tests/training/*.py ganrun/benchmarks/ablation.py", {"take_turn": "step"}),
    ("ganrun/tuning/scheduler.py ganrun/tuning/trainable.py", {"messages": "events"}),
]

CODE = {
    "tests/ranks.py": {'host.Checkpoints"': 'host.CheckpointWriter"'},
    "tests/worker/test_rollback.py": {
        "from ganrun.rng import Draw\n": "from ganrun.rng import KeyedNoise\n",
        "uniform, normal = Draw.uniform, Draw.normal": "uniform, normal = KeyedNoise.uniform, KeyedNoise.normal",
        "def noted(self, *size, purpose):": "def noted(self, *size, name):",
        "turn.update(generation=self.generation,": "turn.update(rollback_count=self.rollback_count,",
        "return normal(self, *size, purpose=purpose)": "return normal(self, *size, name=name)",
        "Draw.normal = noted": "KeyedNoise.normal = noted",
        'turn = {"generation": 0,': 'turn = {"rollback_count": 0,',
        'turn["generation"] <': 'turn["rollback_count"] <',
        'told["generation"]': 'told["rollback_count"]',
    },
    "tests/ray_backend/test_evaluation_tasks.py": {
        "import Scores\n": "import EvaluationTasks\n",
        " = Scores(Config": " = EvaluationTasks(Config",
        "asked.hear(": "asked.handle(",
    },
}
"""Code that stands in strings."""

KEPT = [
    ("tests/games/test_augment.py", "purpose", "for purpose in"),
    ("ganrun/worker/worker.py", "order", "Order("),
    ("ganrun/worker/worker.py", "order", "stream.order"),
    ("ganrun/worker/worker.py", "order", "slots.owned, "),
]
"""(file, name, part of the line) that no rule touches."""

SEEN = {
    ("tests/games/test_augment.py", "purpose -> name in test_each_call_has_its_own_randomness_and_the_same_one_again"),
    ("ganrun/worker/host.py", "attribute play -> state in the module"),
    ("tests/games/test_gan.py", "attribute take_turn -> step in the module"),
}
"""(file, collision) that was looked at, and is none."""
