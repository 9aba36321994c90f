# Sourced: settings of Open MPI that every launch here wants. A value that is set already stays.

# Containers run as root.
export OMPI_ALLOW_RUN_AS_ROOT=${OMPI_ALLOW_RUN_AS_ROOT:-1}
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM:-1}
# More ranks than cores is how layouts are tried on one machine; ranks then must yield while they wait.
export OMPI_MCA_rmaps_base_oversubscribe=${OMPI_MCA_rmaps_base_oversubscribe:-1}
# Seconds between mpirun's SIGTERM and its SIGKILL: time to write a checkpoint (Open MPI's default is 1). A job whose rank was
# killed lives on for twice as long, so a little more, not much: raise it for models whose checkpoints take longer.
export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-2}
# Each rank has several threads: binding a rank to one core would starve them.
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
