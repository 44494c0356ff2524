-- description: A process in a container holds the memory file of a process open: the path in memory_file, whose
--   number is the target's pid as the container sees it. With it memory can be read and, if opened so, changed.
-- strategy: ADS-0002
-- interval: 60
-- platform: linux
-- severity: high
-- false_positives: Debuggers and profilers at work, and runtimes that open their own memory file (Julia does): the
--   kernel shows /proc/self/mem with the number, so compare it with NSpid in /proc/<pid>/status.
-- removed: false
SELECT
  f.fd,
  f.path AS memory_file,
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
FROM process_open_files AS f
CROSS JOIN processes AS p ON p.pid = f.pid
CROSS JOIN process_namespaces AS ns ON ns.pid = p.pid
CROSS JOIN process_namespaces AS init ON init.pid = 1
LEFT JOIN processes AS parent ON parent.pid = p.parent
WHERE f.path LIKE '%/mem'
  AND f.path GLOB '*/[0-9]*/mem'
  AND f.path <> '/proc/' || f.pid || '/mem'
  AND (
    ns.pid_namespace <> init.pid_namespace
    OR ns.cgroup_namespace <> init.cgroup_namespace
    OR p.cgroup_path LIKE '%/docker/%'
    OR p.cgroup_path LIKE '%/docker-%.scope%'
    OR p.cgroup_path LIKE '%kubepods%'
    OR (p.cgroup_path LIKE '%/libpod-%' AND p.cgroup_path NOT LIKE '%/libpod-conmon-%')
  );
