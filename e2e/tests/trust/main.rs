//! What a mesh promises of its roots of trust, with real processes: hosts are network namespaces, clients never retry. Each
//! module is named after its promise.

mod a_backup_and_an_edited_file_cost_no_request;
mod a_change_is_taken_back_without_an_error;
mod a_host_an_hour_off_is_named;
mod a_stolen_anchor_publishes_no_bundle;
mod a_tainted_anchor_is_refused_everywhere;
mod an_anchor_that_ends_midway_costs_no_request;
mod cut_connections_are_announced_and_counted;
mod fleet;
mod killed_leaders_cost_no_request;
mod roots_are_replaced_without_an_error;
mod who_is_cut_off_is_waited_for_and_comes_back;
mod who_knows_fewer_words_is_carried;
mod who_reads_roots_at_start_blocks_until_it_restarts;
