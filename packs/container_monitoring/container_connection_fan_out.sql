-- description: A process in a container waits for answers from 20 or more different addresses and ports at once
--   (TCP connections in SYN_SENT). That is what a connect scan of a filtered or sparse network looks like.
-- strategy: ADS-0001
-- interval: 60
-- platform: linux
-- severity: medium
-- false_positives: Crawlers, service meshes and peer-to-peer software right after a network failure, when many
--   known peers are unreachable at once. Those recur with the same peers; a scan moves on.
-- removed: false
SELECT
  COUNT(DISTINCT s.remote_address) AS remote_addresses,
  COUNT(DISTINCT s.remote_port) AS remote_ports,
  MIN(s.remote_address) AS lowest_address,
  MAX(s.remote_address) AS highest_address,
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
FROM process_open_sockets AS s
CROSS JOIN processes AS p ON p.pid = s.pid
CROSS JOIN process_namespaces AS ns ON ns.pid = p.pid
CROSS JOIN process_namespaces AS init ON init.pid = 1
LEFT JOIN processes AS parent ON parent.pid = p.parent
WHERE s.family IN (2, 10)
  AND s.protocol = 6
  AND s.state = 'SYN_SENT'
  AND (
    ns.pid_namespace <> init.pid_namespace
    OR ns.cgroup_namespace <> init.cgroup_namespace
    OR p.cgroup_path LIKE '%/docker/%'
    OR p.cgroup_path LIKE '%/docker-%.scope%'
    OR p.cgroup_path LIKE '%kubepods%'
    OR (p.cgroup_path LIKE '%/libpod-%' AND p.cgroup_path NOT LIKE '%/libpod-conmon-%')
  )
GROUP BY p.pid
HAVING COUNT(DISTINCT s.remote_address || ' ' || s.remote_port) >= 20;
