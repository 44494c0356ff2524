-- description: A debugger, tracer or memory dumper was started in a container, a command line named a process's
--   memory file, or a container command line carried one of these in. Needs osquery's audit events.
-- strategy: ADS-0002
-- interval: 30
-- platform: linux
-- severity: medium
-- false_positives: Debugging and profiling by the team that owns the container. When process and parent have
--   ended already, in_container is "unknown" and a debugger on the host is reported as well.
-- removed: false
WITH started AS (
  SELECT
    *,
    -- the part of the path behind its last slash
    REPLACE(path, RTRIM(path, REPLACE(path, '/', '')), '') AS program
  FROM process_events
  WHERE syscall IN ('execve', 'execveat')
)
SELECT
  e.pid,
  e.path,
  e.cmdline,
  e.cwd,
  e.uid,
  e.euid,
  e.auid,
  e.parent,
  e.time,
  above.name AS parent_name,
  above.cmdline AS parent_cmdline,
  COALESCE(p.cgroup_path, above.cgroup_path) AS cgroup_path,
  COALESCE(ns.pid_namespace, above_ns.pid_namespace) AS pid_namespace,
  CASE
    WHEN COALESCE(ns.pid_namespace, above_ns.pid_namespace) IS NULL THEN 'unknown'
    WHEN COALESCE(ns.pid_namespace, above_ns.pid_namespace) <> init.pid_namespace THEN 'yes'
    WHEN COALESCE(ns.cgroup_namespace, above_ns.cgroup_namespace) <> init.cgroup_namespace THEN 'yes'
    WHEN COALESCE(p.cgroup_path, above.cgroup_path) LIKE '%/docker/%' THEN 'yes'
    WHEN COALESCE(p.cgroup_path, above.cgroup_path) LIKE '%/docker-%.scope%' THEN 'yes'
    WHEN COALESCE(p.cgroup_path, above.cgroup_path) LIKE '%kubepods%' THEN 'yes'
    ELSE 'no'
  END AS in_container
FROM started AS e
CROSS JOIN process_namespaces AS init ON init.pid = 1
LEFT JOIN process_namespaces AS ns ON ns.pid = e.pid
LEFT JOIN process_namespaces AS above_ns ON above_ns.pid = e.parent
LEFT JOIN processes AS p ON p.pid = e.pid
LEFT JOIN processes AS above ON above.pid = e.parent
WHERE (
    in_container <> 'no'
    AND (
      e.program IN (
        'gdb', 'gdbserver', 'gcore', 'lldb', 'lldb-server', 'strace', 'ltrace', 'dlv', 'rr', 'py-spy', 'rbspy',
        'procdump', 'memfetch', 'memdump', 'mimipenguin', 'mimipy', 'createdump', 'criu'
      )
      OR e.cmdline GLOB '*/proc/[0-9]*/mem'
      OR e.cmdline GLOB '*/proc/[0-9]*/mem[^a-z]*'
    )
  )
  OR (
    e.program IN ('docker', 'podman', 'nerdctl', 'ctr', 'crictl', 'kubectl')
    AND (
      e.cmdline GLOB '*[ /]gdb'
      OR e.cmdline GLOB '*[ /]gdb *'
      OR e.cmdline GLOB '*[ /]gdbserver'
      OR e.cmdline GLOB '*[ /]gdbserver *'
      OR e.cmdline GLOB '*[ /]gcore'
      OR e.cmdline GLOB '*[ /]gcore *'
      OR e.cmdline GLOB '*[ /]strace'
      OR e.cmdline GLOB '*[ /]strace *'
      OR e.cmdline GLOB '*[ /]py-spy'
      OR e.cmdline GLOB '*[ /]py-spy *'
      OR e.cmdline GLOB '*[ /]dlv'
      OR e.cmdline GLOB '*[ /]dlv *'
    )
  );
