"""Which arguments of `transformers.TrainingArguments` a federation file may set, and why not the others.

Each argument is in exactly one group. An argument that would change nothing is refused, so that no run differs from
what its file says.
"""

from __future__ import annotations

HONOURED = {
    "optimiser": "optim optim_args adam_beta1 adam_beta2 adam_epsilon lr_scheduler_kwargs",
    "precision": "bf16 fp16 tf32",
    "memory": "activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing "
    "gradient_checkpointing_kwargs torch_empty_cache_steps",
    "compilation": "torch_compile torch_compile_backend torch_compile_mode",
    "noise on embeddings": "neftune_noise_alpha",
    "device": "use_cpu full_determinism",
    "data loader": "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
    "dataloader_prefetch_factor dataloader_multiprocessing_context",
}
"""What they are about → names, of those that have their effect."""

REFUSED = {
    "h2tune sets it by its own keys": "output_dir max_steps num_train_epochs per_device_train_batch_size "
    "gradient_accumulation_steps learning_rate weight_decay seed data_seed lr_scheduler_type warmup_steps "
    "max_grad_norm remove_unused_columns label_names disable_tqdm",
    "h2tune computes the loss itself": "label_smoothing_factor use_liger_kernel liger_kernel_config "
    "average_tokens_across_devices",
    "h2tune chooses the trained parameters": "optim_target_modules",
    "h2tune draws the batches itself": "train_sampling_strategy length_column_name auto_find_batch_size "
    "dataloader_drop_last dataloader_in_order accelerator_config include_num_input_tokens_seen",
    "h2tune scores clients itself, see [data]": "eval_strategy eval_steps eval_delay per_device_eval_batch_size "
    "prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps "
    "include_for_metrics batch_eval_metrics bf16_full_eval fp16_full_eval load_best_model_at_end "
    "metric_for_best_model greater_is_better do_train do_eval do_predict use_cache",
    "h2tune stores each round itself, and an interrupted run goes on": "save_only_model save_strategy save_steps "
    "save_on_each_node save_total_limit enable_jit_checkpoint ignore_data_skip resume_from_checkpoint "
    "restore_callback_states_from_checkpoint",
    "h2tune publishes nothing: see h2tune export": "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy "
    "hub_always_push hub_revision",
    "h2tune has one run for all clients: set monitors, at the top of the file": "report_to run_name project "
    "trackio_space_id trackio_bucket_id trackio_static_space_id",
    "h2tune logs to events.jsonl": "logging_strategy logging_steps logging_first_step log_on_each_node "
    "logging_nan_inf_filter log_level log_level_replica debug skip_memory_metrics",
    "one process trains a client": "parallelism_config ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed local_rank",
}
"""Reason → names, of those that are refused."""


def honoured() -> frozenset[str]:
    """Return the arguments that a federation file may set."""
    return frozenset(name for names in HONOURED.values() for name in names.split())


def reasons() -> dict[str, str]:
    """Return the reason for each argument that is refused."""
    return {name: reason for reason, names in REFUSED.items() for name in names.split()}


def table() -> str:
    """Return the groups as a Markdown table, for the documentation."""
    rows = [f"| {group} | {_code(names)} | honoured |" for group, names in HONOURED.items()]
    rows += [f"| {reason} | {_code(names)} | refused |" for reason, names in REFUSED.items()]
    return "\n".join(["| about | arguments | state |", "|---|---|---|", *rows]) + "\n"


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split())
