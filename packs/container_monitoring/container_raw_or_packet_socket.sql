-- description: A process in a container holds a raw IP or packet socket open. Handmade packets (SYN, ACK and ARP
--   scans, spoofing) and sniffing need one; it does not show in the list of connections.
-- strategy: ADS-0001
-- interval: 60
-- platform: linux
-- severity: medium
-- false_positives: Network agents in containers (routing daemons, keepalived, CNI agents, DHCP clients, packet
--   capture). The usual ones are left out by name; suppress yours by name and cgroup path.
-- removed: false
SELECT DISTINCT
  CASE s.family WHEN 17 THEN 'packet' ELSE 'raw' END AS socket_type,
  s.family,
  s.protocol,
  s.local_address,
  s.remote_address,
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
WHERE (s.family = 17 OR (s.family IN (2, 10) AND s.protocol = 255))
  AND (
    ns.pid_namespace <> init.pid_namespace
    OR ns.cgroup_namespace <> init.cgroup_namespace
    OR p.cgroup_path LIKE '%/docker/%'
    OR p.cgroup_path LIKE '%/docker-%.scope%'
    OR p.cgroup_path LIKE '%kubepods%'
    OR (p.cgroup_path LIKE '%/libpod-%' AND p.cgroup_path NOT LIKE '%/libpod-conmon-%')
  )
  AND p.name NOT IN (
    'ping', 'ping6', 'traceroute', 'traceroute6', 'mtr', 'mtr-packet', 'iptables', 'ip6tables', 'ipvsadm',
    'kube-proxy', 'dhclient', 'dhcpcd', 'udhcpc', 'radvd', 'keepalived', 'bird', 'bird6', 'ospfd', 'zebra',
    'calico-node', 'cilium-agent', 'systemd-network'
  );
