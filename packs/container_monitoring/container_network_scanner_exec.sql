-- description: A network scanner was started in a container, or a container command line (docker, podman, nerdctl,
--   ctr, crictl, kubectl) carried one in. Sees scans too short for a poll; needs osquery's audit events.
-- strategy: ADS-0001
-- interval: 30
-- platform: linux
-- severity: high
-- false_positives: Scans that you run yourself. Audit events carry no container: when process and parent have
--   ended already, in_container is "unknown" and a scan on the host is reported as well.
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
        'nmap', 'nping', 'masscan', 'zmap', 'zgrab', 'zgrab2', 'rustscan', 'naabu', 'fscan', 'pnscan',
        'unicornscan', 'scanrand', 'hping3', 'hping2', 'fping', 'arp-scan', 'netdiscover', 'nbtscan',
        'onesixtyone', 'ike-scan', 'sslscan', 'massdns', 'dnsrecon', 'dnsenum', 'dnsmap', 'dnsx', 'fierce',
        'kube-hunter'
      )
      OR e.cmdline LIKE '% --top-ports%'
      OR e.cmdline LIKE '% --min-rate%'
      OR e.cmdline LIKE '% --min-hostgroup%'
      OR e.cmdline LIKE '% --osscan-guess%'
      OR e.cmdline LIKE '% --randomize-hosts%'
      OR (
        (
          e.cmdline GLOB '* -p[0-9-]*'
          OR e.cmdline GLOB '* -p [0-9-]*'
          OR e.cmdline GLOB '* --ports[ =][0-9]*'
          OR e.cmdline GLOB '* --rate[ =][0-9]*'
          OR e.cmdline GLOB '* -s[STUAWMNFXYZOn] *'
          OR e.cmdline GLOB '* -Pn *'
        )
        -- an address block up to /30, or a range such as 10.0.0.1-254
        AND regex_match(
          SUBSTR(e.cmdline, 1, 4096),
          '(^|[ =,])([0-9]{1,3}[.]){3}[0-9]{1,3}(/([0-9]|[12][0-9]|30)|-[0-9]{1,3})([ ,]|$)',
          0
        ) IS NOT NULL
      )
    )
  )
  OR (
    e.program IN ('docker', 'podman', 'nerdctl', 'ctr', 'crictl', 'kubectl')
    AND (
      e.cmdline GLOB '*[ /]nmap'
      OR e.cmdline GLOB '*[ /]nmap *'
      OR e.cmdline GLOB '*[ /]masscan'
      OR e.cmdline GLOB '*[ /]masscan *'
      OR e.cmdline GLOB '*[ /]zmap'
      OR e.cmdline GLOB '*[ /]zmap *'
      OR e.cmdline GLOB '*[ /]rustscan'
      OR e.cmdline GLOB '*[ /]rustscan *'
      OR e.cmdline GLOB '*[ /]naabu'
      OR e.cmdline GLOB '*[ /]naabu *'
      OR e.cmdline GLOB '*[ /]fscan'
      OR e.cmdline GLOB '*[ /]fscan *'
    )
  );
