-- description: A process in a container stands still because another process traces it (state t): a debugger or
--   an injector has it in its hands right now. The tracer is TracerPid in /proc/<pid>/status.
-- strategy: ADS-0002
-- interval: 60
-- platform: linux
-- severity: medium
-- false_positives: Developers with gdb, strace or delve; crash handlers that inspect a dying process. A process
--   that runs between two stops is missed, so no row does not mean no tracer.
-- removed: false
SELECT
  p.state,
  p.pid,
  p.name,
  p.path,
  p.cmdline,
  p.cwd,
  p.uid,
  p.parent,
  parent.name AS parent_name,
  parent.cmdline AS parent_cmdline,
  p.start_time,
  p.cgroup_path,
  ns.pid_namespace,
  ns.mnt_namespace,
  ns.net_namespace
FROM processes AS p
CROSS JOIN process_namespaces AS ns ON ns.pid = p.pid
CROSS JOIN process_namespaces AS init ON init.pid = 1
LEFT JOIN processes AS parent ON parent.pid = p.parent
WHERE p.state = 't'
  AND (
    ns.pid_namespace <> init.pid_namespace
    OR ns.cgroup_namespace <> init.cgroup_namespace
    OR p.cgroup_path LIKE '%/docker/%'
    OR p.cgroup_path LIKE '%/docker-%.scope%'
    OR p.cgroup_path LIKE '%kubepods%'
    OR (p.cgroup_path LIKE '%/libpod-%' AND p.cgroup_path NOT LIKE '%/libpod-conmon-%')
  );
